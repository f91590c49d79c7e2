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


def set_batch_norm_momentum(model: keras.Model, momentum: float) -> None:
    """How much of their old value the moving statistics of all batch norms in `model` keep at every step, in 0..1.

    The value that a pretrained network comes with can be far too slow for a short training from random weights:
    MobileNetV2's 0.999 has after 375 steps still 69 % of the statistics it was initialised with.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = momentum
        elif isinstance(layer, keras.Model):
            set_batch_norm_momentum(layer, momentum)
