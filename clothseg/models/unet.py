"""The U-Net (Ronneberger et al. 2015) that joins an encoder and a decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras


@dataclass(frozen=True)
class Network:
    """A network and its parts, which share their weights.

    Attributes:
        encoder: photos to feature maps.
        model: RGB photos (batch, height, width, 3), integers or floats in 0..255, to logits (batch, height / stride,
            width / stride, classes), float32 under any precision policy, at the decoder's own stride.
        trained: what is fitted: `model`, or with the auxiliary head a model from photos to [logits, presence], where
            presence is float32 (batch, classes), the logits of whether each class occurs in the photo.
    """

    encoder: keras.Model
    model: keras.Model
    trained: keras.Model


def build_network(
    encoder: keras.Model,
    *,
    decoder: Callable[..., keras.KerasTensor],
    classes: int,
    presence: bool,
    gate: float,
    name: str,
) -> Network:
    """Join an encoder and a decoder.

    Args:
        encoder: a model from photos to feature maps, finest (stride 2) first; see `backbones.build_encoder`.
        decoder: from those maps and `classes` to logits; see `clothseg.models.decoders`.
        classes: number of classes, background included.
        presence: whether to add the auxiliary head that tells which classes are in a photo, from the coarsest map
            (Zhang et al. 2018, EncNet).
        gate: with the auxiliary head, so many times the logarithm of a class's presence is added to its logits all over
            the photo, at least 0: what is not there is then hardly found anywhere. 0 leaves the logits alone.
        name: name of the model.
    """
    photo = keras.Input(encoder.input_shape[1:], name="photo", dtype="float32")
    features: Sequence[keras.KerasTensor] = encoder(photo)
    logits = decoder(features, classes=classes)
    if not presence:
        model = keras.Model(photo, logits, name=name)
        return Network(encoder, model, model)
    pooled = keras.layers.GlobalAveragePooling2D(dtype="float32", name="presence_pool")(features[-1])
    head = keras.layers.Dense(classes, dtype="float32", name="presence")(pooled)
    if gate > 0:
        log_presence = keras.layers.Activation("log_sigmoid", dtype="float32", name="log_presence")(head)
        everywhere = keras.layers.Reshape((1, 1, classes), dtype="float32")(log_presence)
        everywhere = keras.layers.Rescaling(gate, dtype="float32", name="gate")(everywhere)
        logits = keras.layers.Add(dtype="float32", name="gated_logits")([logits, everywhere])
    model = keras.Model(photo, logits, name=name)
    return Network(encoder, model, keras.Model(photo, [logits, head], name=f"{name}_with_presence"))


def freeze(encoder: keras.Model, frozen: bool, *, batch_norm_frozen: bool) -> None:
    """Hold the encoder still, weights and batch-norm statistics alike, or let it move again.

    Takes effect in the model around the encoder once that is compiled (again).

    Args:
        encoder: of a network.
        frozen: whether nothing of it moves.
        batch_norm_frozen: whether its batch norms stay as they are, weights and statistics, even where the rest moves.
    """
    encoder.trainable = not frozen
    if not frozen:
        for norm in batch_norms(encoder):
            norm.trainable = not batch_norm_frozen


def set_batch_norm_momentum(model: keras.Model, momentum: float) -> None:
    """How much of their old value the moving statistics of all batch norms in `model` keep at every step, in 0..1.

    The value that a pretrained network comes with can be far too slow for a short training from random weights:
    MobileNetV2's 0.999 has after 375 steps still 69 % of the statistics it was initialised with.
    """
    for norm in batch_norms(model):
        norm.momentum = momentum


def batch_norms(model: keras.Model) -> list[Any]:
    """Every batch norm in a model and the models within it."""
    found: list[Any] = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            found.append(layer)
        elif isinstance(layer, keras.Model):
            found += batch_norms(layer)
    return found
