"""The U-Net (Ronneberger et al. 2015) that joins an encoder, a decoder and a head."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras


def build_unet(
    encoder: keras.Model,
    *,
    decoder: Callable[[Sequence[keras.KerasTensor]], keras.KerasTensor],
    classes: int,
    name: str,
) -> keras.Model:
    """Join an encoder and a decoder under a head that gives every pixel a score per class.

    Args:
        encoder: a model from photos to feature maps, finest (stride 2) first; see `backbones.build_encoder`.
        decoder: from those maps to one map at stride 2.
        classes: number of classes, background included.
        name: name of the model.

    Returns:
        A model from RGB photos (batch, height, width, 3), integers or floats in 0..255, to logits
        (batch, height, width, classes), float32 under any precision policy. Its encoder is `get_layer("encoder")`.
    """
    photo = keras.Input(encoder.input_shape[1:], name="photo", dtype="float32")
    x = decoder(encoder(photo))  # (batch, height / 2, width / 2, channels)
    head = keras.layers.Conv2DTranspose(classes, 3, strides=2, padding="same", dtype="float32", name="logits")
    return keras.Model(photo, head(x), name=name)


def freeze(encoder: keras.Model, frozen: bool) -> None:
    """Hold the encoder still, weights and batch-norm statistics alike, or let both move again.

    Takes effect in the model around the encoder once that is compiled (again).
    """
    encoder.trainable = not frozen
