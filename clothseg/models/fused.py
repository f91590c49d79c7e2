"""Layers as TensorFlow computes them fastest: other operations, the same numbers but for rounding.

Keras composes a batch norm of about ten operations in float32, of which each reads or writes the whole map; TensorFlow
has one. oneDNN's gradient of a strided convolution's weights takes several times as long as a matrix product with as
many operations: in bfloat16, with AMX only where maps are small, and in float32 on processors without AVX-512. Together
that is a quarter to a third of a training step. With AMX a product in float32 takes four times as long as in bfloat16,
so that a network in bfloat16 has the gradients of its last layer, which is of float32, in bfloat16 like the others
(`benchmarks/README.md`).

Only what layers do is changed, not what they are: a saved network is one of Keras's own layers, and has Keras's speed
until it is given to `fuse` again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras

from clothseg.machine import processor, tensorflow_on_processor, wrong_in_16_bits

# Pixels of a map up to which, with AMX, oneDNN's gradient of the weights takes longer than a matrix product: at 16 x 16
# as long, at 4 x 4 seven times, at 64 x 64 a quarter.
SMALL = 16 * 16


def fuse(model: keras.Model, *, deterministic: bool) -> None:
    """Lets TensorFlow compute batch norms in one operation, and gradients of doubling convolutions as is fastest.

    Does nothing under another backend of Keras, leaves layers alone that have options for which there is no such
    operation, and on a GPU the gradients.

    Args:
        model: is changed; models within it are gone through too.
        deterministic: whether TensorFlow is to compute the same numbers every time. On a GPU it refuses the gradient of
            a batch norm whose statistics stand still; that one then stays Keras's.
    """
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    still = not (deterministic and on_gpu)
    for layer in layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.call = _batch_norm(layer, still=still)
        elif isinstance(layer, keras.layers.Conv2DTranspose) and not on_gpu and _doubles(layer):
            _speed_up(layer)


def least_batch() -> int:
    """How many photos a network is best given at once at least, if need be copies.

    Of a single one TensorFlow leaves weights in an order that oneDNN, where there is AVX2 without AVX-512, has no fast
    kernels for: DenseNet121 at 128 px takes 0.40 s for one photo, and 0.14 s for two.
    """
    return 2 if _on_avx2_alone() else 1


def _on_avx2_alone() -> bool:
    flags = processor().split()
    return "avx2" in flags and "avx512f" not in flags and tensorflow_on_processor()


def layers(model: keras.Model) -> Iterator[keras.Layer]:
    """The layers of a model and of those within it."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from layers(layer)
        else:
            yield layer


def _batch_norm(layer: keras.layers.BatchNormalization, *, still: bool) -> Callable[..., Any]:
    import tensorflow as tf

    plain = layer.call

    def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        moving = bool(training and layer.trainable)
        fusible = (
            mask is None and len(inputs.shape) == 4 and layer.axis in (-1, 3)
            and inputs.dtype in (tf.float32, tf.bfloat16, tf.float16)
            and not (moving and (getattr(layer, "renorm", False) or layer.synchronized))
            and (moving or still or not training)
        )  # fmt: skip
        if not fusible:
            return plain(inputs, training=training, mask=mask)
        channels = inputs.shape[-1]
        given = {
            "x": inputs,
            "scale": tf.convert_to_tensor(layer.gamma) if layer.scale else tf.ones(channels),
            "offset": tf.convert_to_tensor(layer.beta) if layer.center else tf.zeros(channels),
            "epsilon": layer.epsilon,
        }
        if not moving:
            statistics = {"mean": layer.moving_mean, "variance": layer.moving_variance}
            statistics = {name: tf.convert_to_tensor(value) for name, value in statistics.items()}
            return tf.raw_ops.FusedBatchNormV3(**given, **statistics, is_training=False).y
        none = tf.zeros((0,))
        made = tf.raw_ops.FusedBatchNormV3(**given, mean=none, variance=none, is_training=True)
        # The operation gives the unbiased variance, for the moving statistics; Keras's are of the biased one.
        count = tf.cast(tf.size(inputs) // channels, tf.float32)
        variance = made.batch_variance * (tf.maximum(count - 1, 1) / count)
        for kept, new in ((layer.moving_mean, made.batch_mean), (layer.moving_variance, variance)):
            kept.assign(kept * layer.momentum + new * (1.0 - layer.momentum))
        return made.y

    return call


def _doubles(layer: keras.layers.Conv2DTranspose) -> bool:
    """Whether it is a convolution of pix2pix's decoder."""
    return (
        layer.kernel_size == (3, 3) and layer.strides == (2, 2)
        and layer.padding == "same" and layer.dilation_rate == (1, 1) and layer.output_padding is None
        and layer.data_format == "channels_last"
    )  # fmt: skip


def _speed_up(layer: keras.layers.Conv2DTranspose) -> None:
    """Chooses how the layer's gradients are computed: where that is not Keras's way, it is given another `call`."""
    shape, dtype = _input_of(layer)
    large = shape is not None and shape[1] * shape[2] > SMALL
    amx = "amx_bf16" in processor().split()
    # What is of float32 because oneDNN is wrong in 16 bits has its gradients in float32 too.
    wrong = shape is None or wrong_in_16_bits(2, width=shape[2])
    if amx and dtype == "bfloat16" and layer.compute_dtype == "float32" and not wrong:
        layer.autocast = False
        convolve_by(layer, _doubling(as_product=not large))
    elif layer.compute_dtype == "bfloat16" and not (amx and large):
        convolve_by(layer, _doubling(as_product=True))
    elif layer.compute_dtype == "float32" and _on_avx2_alone():
        convolve_by(layer, _doubling(as_product=True))


def convolve_by(layer: keras.Layer, convolve: Callable[..., Any]) -> None:
    """Gives a convolution another `call`.

    Args:
        layer: of Keras, with one kernel and channels last.
        convolve: from inputs and kernel to outputs, without bias and activation. It stays with the layer under this
            name.
    """
    import tensorflow as tf

    def call(inputs: Any) -> Any:
        outputs = convolve(inputs, tf.cast(tf.convert_to_tensor(layer.kernel), layer.compute_dtype))
        if layer.use_bias:
            outputs = tf.nn.bias_add(outputs, tf.cast(tf.convert_to_tensor(layer.bias), layer.compute_dtype))
        return outputs if layer.activation is None else layer.activation(outputs)

    layer.call, layer.convolve = call, convolve


def _input_of(layer: keras.Layer) -> tuple[tuple[int, ...] | None, str | None]:
    """Shape, if all but the batch is known, and numbers of what comes into a layer, before it casts them."""
    try:
        shape, dtype = layer.input.shape, layer.input.dtype
    except (AttributeError, ValueError):  # a layer within a model that is no graph of layers
        return None, None
    return None if None in shape[1:] else shape, dtype


def _doubling(*, as_product: bool) -> Callable[[Any, Any], Any]:
    """Convolves in the kernel's numbers, and computes gradients in those of the inputs.

    Args:
        as_product: whether the gradient of the kernel is a matrix product, or oneDNN's.
    """
    import tensorflow as tf

    def convolved(inputs: Any, kernel: Any) -> Any:
        size = (tf.shape(inputs)[0], 2 * inputs.shape[1], 2 * inputs.shape[2], kernel.shape[2])
        return tf.nn.conv2d_transpose(tf.cast(inputs, kernel.dtype), kernel, size, strides=2)

    def of_kernel(upstream: Any, inputs: Any, shape: tuple[int, ...]) -> Any:
        if not as_product:
            options = {"filter_sizes": shape, "strides": (1, 2, 2, 1), "padding": "SAME"}
            return tf.raw_ops.Conv2DBackpropFilter(input=upstream, out_backprop=inputs, **options)
        columns = patches(upstream)
        columns = tf.reshape(columns, (-1, columns.shape[-1]))
        return tf.reshape(tf.matmul(columns, tf.reshape(inputs, (-1, inputs.shape[-1])), transpose_a=True), shape)

    @tf.custom_gradient
    def doubled(inputs: Any, kernel: Any) -> tuple[Any, Callable[[Any], tuple[Any, Any]]]:
        def gradient(upstream: Any) -> tuple[Any, Any]:
            upstream = tf.cast(upstream, inputs.dtype)
            of_inputs = tf.nn.conv2d(upstream, tf.cast(kernel, inputs.dtype), strides=2, padding="SAME")
            return of_inputs, tf.cast(of_kernel(upstream, inputs, kernel.shape), kernel.dtype)

        return convolved(inputs, kernel), gradient

    return doubled


def patches(maps: Any) -> Any:
    """What each place of a 3 x 3 kernel of stride 2 meets: `tf.image.extract_patches` in a third of its time.

    Args:
        maps: (batch, 2 * height, 2 * width, channels), all but the batch known. What lies below and right of it is 0.

    Returns:
        (batch, height, width, 9 * channels): row by row, and of every place its channels.
    """
    import tensorflow as tf

    _, height, width, channels = maps.shape
    rows = tf.reshape(maps, (-1, height // 2, 2, width // 2, 2 * channels))

    def three_wide(row: Any) -> Any:
        return tf.concat([row, tf.pad(row[:, :, 1:, :channels], [[0, 0], [0, 0], [0, 1], [0, 0]])], axis=-1)

    upper, middle = three_wide(rows[:, :, 0]), three_wide(rows[:, :, 1])
    lower = tf.pad(upper[:, 1:], [[0, 0], [0, 1], [0, 0], [0, 0]])
    return tf.concat([upper, middle, lower], axis=-1)
