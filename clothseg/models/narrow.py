"""Convolutions that TensorFlow computes wrongly in 16 bits, computed in float32."""

from __future__ import annotations

import keras

from clothseg.models.fused import layers


def compute_narrow_in_float32(model: keras.Model) -> None:
    """Lets strided convolutions to or from maps that are one pixel wide compute in float32.

    On processors oneDNN, as TensorFlow 2.21 has it, takes for such a convolution in bfloat16 what happens to be in
    memory: its gradient, and with AMX its output too, differ from call to call and may be infinite. Of 3,110 random
    shapes it computed all others rightly but for two of stride 4 with one output channel or 59, and all in float32.
    Photos of 32 pixels in width end in such maps. Keras casts what goes in and comes out, and the weights are float32
    anyway.

    Args:
        model: is changed; models within it are gone through too.
    """
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return
    for layer in layers(model):
        if layer.compute_dtype in ("bfloat16", "float16") and _narrow(layer):
            layer.dtype_policy = keras.DTypePolicy("float32")


def _narrow(layer: keras.Layer) -> bool:
    if not isinstance(layer, _STRIDED):
        return False
    try:
        small = layer.input if isinstance(layer, keras.layers.Conv2DTranspose) else layer.output
    except ValueError:  # a layer within a model that is no graph of layers
        return False
    return max(layer.strides) > 1 and small.shape[2] == 1


_STRIDED = (
    keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D, keras.layers.Conv2DTranspose,
)  # fmt: skip
