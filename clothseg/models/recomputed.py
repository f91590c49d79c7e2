"""Maps that gradients need are computed anew backwards, where that is cheap, and not kept until then.

In a dense block every layer joins all maps before it, norms and activates them, and its convolution needs the result
for the gradient of its kernel: a layer adds 32 channels and has up to a thousand kept, twice. What they are computed of
is kept anyway (Pleiss et al. 2017, Memory-Efficient Implementation of DenseNets). It is gradient checkpointing (Chen et
al. 2016, Training Deep Nets with Sublinear Memory Cost) in which no convolution is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
from keras import ops

from clothseg.machine import tensorflow_on_processor
from clothseg.models.fused import convolve_by, layers


def recompute(model: keras.Model) -> None:
    """Lets convolutions compute their inputs anew for their gradients, where those were normed and maybe activated.

    Gradients are the same but for rounding. It concerns what TensorFlow traces into graphs, and batch norms that are
    one operation, as `fuse` makes them, and have the statistics of the batch. Does nothing under another backend of
    Keras and on a GPU.

    Args:
        model: is changed; models within it are gone through too.
    """
    if not tensorflow_on_processor():
        return
    for layer in layers(model):
        if (convolve := _convolution(layer)) is not None:
            convolve_by(layer, partial(_recomputing, layer, convolve))


def _convolution(layer: keras.Layer) -> Callable[[Any, Any], Any] | None:
    """From inputs and kernel to outputs, if the layer is a convolution that has one kernel."""
    if hasattr(layer, "convolve"):  # by `fuse`
        return layer.convolve
    kind = type(layer)  # who derives from Keras's may convolve otherwise
    if kind not in _CONVOLUTIONS or layer.data_format != "channels_last":
        return None
    options = {"strides": layer.strides, "padding": layer.padding, "dilation_rate": layer.dilation_rate}
    if kind is keras.layers.Conv2DTranspose:
        options["output_padding"] = layer.output_padding
    return partial(_CONVOLUTIONS[kind], **options)


_CONVOLUTIONS = {
    keras.layers.Conv2D: ops.conv,
    keras.layers.DepthwiseConv2D: ops.depthwise_conv,
    keras.layers.Conv2DTranspose: ops.conv_transpose,
}


def _recomputing(layer: keras.Layer, convolve: Callable[[Any, Any], Any], inputs: Any, kernel: Any) -> Any:
    import tensorflow as tf

    if tf.executing_eagerly() or not layer.trainable or (normed := _Normed.of(inputs)) is None:
        return convolve(inputs, kernel)
    pieces = _joined(normed.maps) or [normed.maps]

    @tf.custom_gradient
    def convolved(inputs: Any, kernel: Any, maps: Any, scale: Any, offset: Any) -> tuple[Any, Callable[[Any], Any]]:
        def gradient(upstream: Any) -> Any:
            maps_again = _join(pieces, after=upstream)
            normed_again = normed.compute(maps_again, scale, offset)
            with tf.GradientTape() as tape:
                tape.watch((normed_again, kernel))
                # Which no gradient needs, and TensorFlow leaves out.
                outputs = convolve(normed.activate(normed_again), kernel)
            of_normed, of_kernel = tape.gradient(outputs, (normed_again, kernel), output_gradients=upstream)
            return None, of_kernel, *normed.gradients(of_normed, maps_again, scale)

        return convolve(inputs, kernel), gradient

    return convolved(inputs, kernel, normed.maps, normed.scale, normed.offset)


def _joined(maps: Any) -> list[Any] | None:
    """What was joined, channel by channel, to these maps; what had been joined itself is taken apart."""
    import tensorflow as tf

    operation = maps.op
    if operation.type != "ConcatV2" or tf.get_static_value(operation.inputs[-1]) not in (-1, len(maps.shape) - 1):
        return None
    return [part for piece in operation.inputs[:-1] for part in _joined(piece) or [piece]]


def _join(pieces: Sequence[Any], *, after: Any) -> Any:
    """Joins maps once another is there: TensorFlow would do it as soon as the pieces are, and keep what is joined."""
    import tensorflow as tf

    with tf.control_dependencies([after]):
        pieces = [tf.identity(piece) for piece in pieces]
    return pieces[0] if len(pieces) == 1 else tf.concat(pieces, axis=-1)


@dataclass(frozen=True)
class _Normed:
    """Maps that an operation of the graph has normed by the statistics of the batch, and one maybe activated.

    Attributes:
        norm: the operation.
        activation: type of the other, whose gradient has to need no more than its output.
    """

    norm: Any
    activation: str | None

    @classmethod
    def of(cls, maps: Any) -> _Normed | None:
        """How these maps came about, if so."""
        operation, activation = maps.op, None
        if operation.type in ("Relu", "Relu6"):
            activation, operation = operation.type, operation.inputs[0].op
        if operation.type != "FusedBatchNormV3" or not operation.get_attr("is_training"):
            return None
        return cls(operation, activation)

    @property
    def maps(self) -> Any:
        """What was normed, (batch, height, width, channels)."""
        return self.norm.inputs[0]

    @property
    def scale(self) -> Any:
        """float32 (channels,)."""
        return self.norm.inputs[1]

    @property
    def offset(self) -> Any:
        """float32 (channels,)."""
        return self.norm.inputs[2]

    def activate(self, normed: Any) -> Any:
        import tensorflow as tf

        return normed if self.activation is None else getattr(tf.raw_ops, self.activation)(features=normed)

    def compute(self, maps: Any, scale: Any, offset: Any) -> Any:
        """Norms them again by the statistics that were found."""
        import tensorflow as tf

        # Of its outputs after the maps, two are for moving averages and two, of the batch alone, for the gradient.
        mean, variance = self.norm.outputs[3:5]
        given = {"x": maps, "scale": scale, "offset": offset, "mean": mean, "variance": variance}
        return tf.raw_ops.FusedBatchNormV3(**given, epsilon=self.norm.get_attr("epsilon"), is_training=False).y

    def gradients(self, upstream: Any, maps: Any, scale: Any) -> tuple[Any, Any, Any]:
        """Of what was normed, of scale and of offset."""
        import tensorflow as tf

        reserved = {f"reserve_space_{number}": each for number, each in enumerate(self.norm.outputs[3:], 1)}
        given = {"y_backprop": upstream, "x": maps, "scale": scale, "epsilon": self.norm.get_attr("epsilon")}
        found = tf.raw_ops.FusedBatchNormGradV3(**given, **reserved)
        return found.x_backprop, found.scale_backprop, found.offset_backprop
