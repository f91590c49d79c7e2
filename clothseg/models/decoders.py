"""Decoders: from an encoder's feature maps back to one map at stride 2.

A decoder knows the encoder's contract, a list of maps each half the size of the one before, and never the backbone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras

from clothseg.errors import UserError

KERNEL_SIZE = 3  # the article's; pix2pix itself used 4


def upsample(filters: int, size: int) -> keras.Sequential:
    """The up-sampling block of pix2pix (Isola et al. 2017), without dropout.

    The same block as `tensorflow_examples.models.pix2pix.pix2pix.upsample(filters, size)`, which is in no package
    registry: (batch, height, width, channels) to (batch, 2 * height, 2 * width, filters), values of at least 0.
    """
    return keras.Sequential(
        [
            keras.layers.Conv2DTranspose(
                filters,
                size,
                strides=2,
                padding="same",
                kernel_initializer=keras.initializers.RandomNormal(0.0, 0.02),
                use_bias=False,
            ),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
        ]
    )


def pix2pix(
    features: Sequence[keras.KerasTensor],
    *,
    filters: Sequence[int],
    upsample: Callable[[int, int], keras.Layer],
) -> keras.KerasTensor:
    """The article's decoder: up-sample the coarsest map, append the next finer one, and again up to the finest.

    Args:
        features: maps (batch, height / stride, width / stride, channels), finest first, each half the size of the one
            before.
        filters: channels after each up-sampling, coarsest first, one fewer than `features`.
        upsample: filters and kernel size to a layer that doubles height and width.

    Returns:
        A map of the size of `features[0]` with `filters[-1]` channels and those of `features[0]`.

    Raises:
        UserError: `filters` has another length.
    """
    *skips, x = features
    if len(filters) != len(skips):
        raise UserError(f"{len(filters)} decoder filters {list(filters)} do not work: the encoder takes {len(skips)}")
    for block_filters, skip in zip(filters, reversed(skips), strict=True):
        x = upsample(block_filters, KERNEL_SIZE)(x)
        x = keras.layers.Concatenate()([x, skip])
    return x
