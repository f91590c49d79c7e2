"""Strided convolutions that oneDNN computes wrongly in 16 bits, computed in float32."""

from __future__ import annotations

import keras

from clothseg.machine import tensorflow_on_processor, wrong_in_16_bits
from clothseg.models.fused import layers


def compute_in_float32_where_wrong(model: keras.Model) -> None:
    """Lets TensorFlow compute in float32 what it would compute wrongly in 16 bits on a processor.

    For two kinds of convolutions oneDNN, as TensorFlow 2.21 has it, takes what happens to be in memory: results differ
    from call to call and may be infinite. Those with a stride to maps that are one pixel wide, where photos of 32
    pixels in width end, have a wrong gradient, and with AMX a wrong output too; so has the gradient of transposed ones
    from such maps. Those with a stride of 4 or more have a wrong output with AMX. Of 9,000 other random shapes one was
    wrong, the gradient of 7 x 7 weights on maps two pixels high; in float32 none of 1,600.

    Keras casts what goes in and comes out, and the weights are float32 anyway.

    Args:
        model: is changed; models within it are gone through too.
    """
    if not tensorflow_on_processor():
        return
    for layer in layers(model):
        if layer.compute_dtype in ("bfloat16", "float16") and isinstance(layer, _STRIDED) and _wrong(layer):
            layer.dtype_policy = keras.DTypePolicy("float32")


_STRIDED = (
    keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D, keras.layers.Conv2DTranspose,
)  # fmt: skip


def _wrong(layer: keras.Layer) -> bool:
    try:
        small = layer.input if isinstance(layer, keras.layers.Conv2DTranspose) else layer.output
        width = small.shape[2]
    except (AttributeError, ValueError):  # a layer within a model that is no graph of layers
        width = None
    return wrong_in_16_bits(max(layer.strides), width=width)
