"""Decoders: from an encoder's feature maps to logits.

A decoder knows the encoder's contract, a list of maps each half the size of the one before, finest (stride 2) first,
and never the backbone. It gives logits (batch, height / stride, width / stride, classes), float32 under any precision
policy, at a stride of its own: they are resized to the labels where they are compared with them, and a loss over a
quarter of the pixels takes a quarter of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import zip_longest

import keras

from clothseg.checks import is_count, is_number
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
    classes: int,
    filters: Sequence[int],
    upsample: Callable[[int, int], keras.Layer],
) -> keras.KerasTensor:
    """The article's decoder: up-sample the coarsest map, append the next finer one, and again up to the finest.

    Args:
        features: maps (batch, height / stride, width / stride, channels), finest first, each half the size of the one
            before.
        classes: number of classes.
        filters: channels after each up-sampling, coarsest first, one fewer than `features`.
        upsample: filters and kernel size to a layer that doubles height and width.

    Returns:
        Logits at the size of the photo.

    Raises:
        UserError: `filters` has another length or holds no counts.
    """
    *skips, x = features
    _check_list("filters", filters, len(skips))
    for block_filters, skip in zip(filters, reversed(skips), strict=True):
        x = upsample(block_filters, KERNEL_SIZE)(x)
        x = keras.layers.Concatenate()([x, skip])
    return keras.layers.Conv2DTranspose(
        classes, KERNEL_SIZE, strides=2, padding="same", dtype="float32", name="logits"
    )(x)


def unet(
    features: Sequence[keras.KerasTensor],
    *,
    classes: int,
    filters: Sequence[int],
    skip_filters: int | Sequence[int | None] | None,
    convolutions: int,
    separable: bool,
    interpolation: str,
    dropout: float,
    batch_norm_momentum: float,
    output_stride: int,
) -> keras.KerasTensor:
    """Resize and convolve, which leaves none of the checkerboards of a transposed convolution (Odena et al. 2016).

    Each step doubles the map, appends the encoder's map of that size, if it has one, and convolves.

    Args:
        features: maps (batch, height / stride, width / stride, channels), finest first.
        classes: number of classes.
        filters: channels after each step, coarsest first; from stride 32 five steps lead to stride 1, four to 2 and
            three to 4.
        skip_filters: to how many channels a 1 x 1 convolution brings the encoder's maps before they are appended: one
            number for all, or one for each of them, coarsest first. None leaves them as they are.
        convolutions: 3 x 3 convolutions in each step.
        separable: whether these are depthwise, each with a 1 x 1 convolution after it.
        interpolation: nearest or bilinear, for doubling.
        dropout: share of channels left out before the logits, in 0..1.
        batch_norm_momentum: what batch norms keep of their statistics at every step, in 0..1.
        output_stride: 1, 2 or 4, that of the logits.

    Returns:
        Logits at `output_stride`.

    Raises:
        UserError: an option is none of those above.
    """
    _check_choice("output_stride", output_stride, 1, 2, 4)
    _check_choice("interpolation", interpolation, "nearest", "bilinear")
    _check_counts(convolutions=convolutions)
    _check_shares(dropout=dropout, batch_norm_momentum=batch_norm_momentum)
    _check_list("filters", filters, _place(output_stride, of=features))
    x, *skips = reversed(features)
    skips = skips[: len(filters)]
    if skip_filters is None or isinstance(skip_filters, int):
        skip_filters = [skip_filters] * len(skips)
    _check_list("skip_filters", skip_filters, len(skips), or_none=True)
    _require(isinstance(separable, bool), "separable", separable, "true or false")
    convolve = partial(_convolve, momentum=batch_norm_momentum, separable=separable)
    for step_filters, skip, squeezed in zip_longest(filters, skips, skip_filters):
        x = keras.layers.UpSampling2D(interpolation=interpolation)(x)
        if squeezed is not None:
            skip = keras.layers.Conv2D(squeezed, 1)(skip)
        if skip is not None:
            x = keras.layers.Concatenate()([x, skip])
        for _ in range(convolutions):
            x = convolve(x, step_filters)
    return _head(x, classes, dropout)


def fpn(
    features: Sequence[keras.KerasTensor],
    *,
    classes: int,
    filters: int,
    branch_filters: int,
    dropout: float,
    batch_norm_momentum: float,
    output_stride: int,
) -> keras.KerasTensor:
    """A feature pyramid and its semantic branch (Kirillov et al. 2019, Panoptic FPN).

    Every map is brought to the same channels and coarser ones are added to finer ones. Each sum is convolved and
    doubled until it has the stride of the output, and all are added up. Unlike in the paper batch norms take the place
    of group norms, and a sum has no convolution of its own before the first of the branch.

    Args:
        features: maps (batch, height / stride, width / stride, channels), finest first.
        classes: number of classes.
        filters: channels of the pyramid; the paper's 256.
        branch_filters: channels of the branch; the paper's 128.
        dropout: share of channels left out before the logits, in 0..1.
        batch_norm_momentum: what batch norms keep of their statistics at every step, in 0..1.
        output_stride: 2 or 4 (the paper's), that of the finest level of the pyramid and of the logits.

    Returns:
        Logits at `output_stride`.

    Raises:
        UserError: an option is none of those above.
    """
    _check_choice("output_stride", output_stride, 2, 4)
    _check_counts(filters=filters, branch_filters=branch_filters)
    _check_shares(dropout=dropout, batch_norm_momentum=batch_norm_momentum)
    coarsest, *finer = reversed(features[-_place(output_stride, of=features) - 1 :])
    pyramid = [keras.layers.Conv2D(filters, 1)(coarsest)]
    for level in finer:
        above = keras.layers.UpSampling2D(interpolation="nearest")(pyramid[-1])
        pyramid.append(keras.layers.Add()([above, keras.layers.Conv2D(filters, 1)(level)]))
    convolve = partial(_convolve, filters=branch_filters, momentum=batch_norm_momentum)
    branches = []
    for doublings, level in enumerate(reversed(pyramid)):
        x = convolve(level)
        for doubling in range(doublings):
            if doubling:
                x = convolve(x)
            x = keras.layers.UpSampling2D(interpolation="bilinear")(x)
        branches.append(x)
    return _head(keras.layers.Add()(branches), classes, dropout)


def deeplabv3plus(
    features: Sequence[keras.KerasTensor],
    *,
    classes: int,
    filters: int,
    pyramid_stride: int,
    rates: Sequence[int],
    low_level_filters: int,
    dropout: float,
    batch_norm_momentum: float,
) -> keras.KerasTensor:
    """Atrous spatial pyramid pooling and one skip (Chen et al. 2018, DeepLabv3+).

    The paper dilates the encoder's last convolutions, which keeps its last map at stride 16 or 8. This one takes the
    encoder as it is: to the map that the pyramid stands on, coarser ones are appended, resized.

    Args:
        features: maps (batch, height / stride, width / stride, channels), strides 2 to 32, finest first.
        classes: number of classes.
        filters: channels of the pyramid and of the decoder; the paper's 256.
        pyramid_stride: 16 or 32, that of the map which the pyramid stands on.
        rates: dilations of the pyramid's 3 x 3 convolutions, in pixels of that map. One that reaches past the map on
            all sides sees no more than a 1 x 1 convolution.
        low_level_filters: channels that the map of stride 4 is brought to; the paper's 48.
        dropout: share of channels left out before the logits, in 0..1.
        batch_norm_momentum: what batch norms keep of their statistics at every step, in 0..1.

    Returns:
        Logits at stride 4.

    Raises:
        UserError: an option is none of those above.
    """
    _check_choice("pyramid_stride", pyramid_stride, 16, 32)
    _check_counts(filters=filters, low_level_filters=low_level_filters)
    _check_list("rates", rates)
    _check_shares(dropout=dropout, batch_norm_momentum=batch_norm_momentum)
    convolve = partial(_convolve, momentum=batch_norm_momentum)
    low_level = features[1]
    x, *coarser = features[-_place(pyramid_stride, of=features) - 1 :]
    for level in coarser:
        x = keras.layers.Concatenate()([x, keras.layers.UpSampling2D(interpolation="bilinear")(level)])
    # No batch norm: there is one pixel for each photo, too few for statistics of a small batch.
    pooled = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
    pooled = keras.layers.Conv2D(filters, 1, activation="relu")(pooled)
    x = keras.layers.Concatenate()(
        [
            convolve(x, filters, size=1),
            *(convolve(x, filters, dilation=rate, separable=True) for rate in rates),
            keras.layers.UpSampling2D(x.shape[1:3])(pooled),
        ]
    )
    x = convolve(x, filters, size=1)
    x = keras.layers.UpSampling2D(pyramid_stride // 4, interpolation="bilinear")(x)
    x = keras.layers.Concatenate()([x, convolve(low_level, low_level_filters, size=1)])
    for _ in range(2):
        x = convolve(x, filters, separable=True)
    return _head(x, classes, dropout)


def _convolve(
    x: keras.KerasTensor, filters: int, *, momentum: float, size: int = 3, dilation: int = 1, separable: bool = False
) -> keras.KerasTensor:
    """Convolution, batch norm and ReLU; a separable one is two of these, as in DeepLabv3+."""
    if separable:
        x = keras.layers.DepthwiseConv2D(size, padding="same", dilation_rate=dilation, use_bias=False)(x)
        x = keras.layers.BatchNormalization(momentum=momentum)(x)
        x = keras.layers.ReLU()(x)
        size, dilation = 1, 1
    x = keras.layers.Conv2D(filters, size, padding="same", dilation_rate=dilation, use_bias=False)(x)
    x = keras.layers.BatchNormalization(momentum=momentum)(x)
    return keras.layers.ReLU()(x)


def _head(x: keras.KerasTensor, classes: int, dropout: float) -> keras.KerasTensor:
    x = keras.layers.SpatialDropout2D(dropout)(x)
    return keras.layers.Conv2D(classes, 1, dtype="float32", name="logits")(x)


def _place(stride: int, *, of: Sequence[keras.KerasTensor]) -> int:
    """How many doublings lead from the coarsest map to a stride, a power of two."""
    return len(of) - stride.bit_length() + 1


def _check_choice(option: str, value: object, *choices: object) -> None:
    _require(value in choices, option, value, f"{', '.join(map(str, choices[:-1]))} or {choices[-1]}")


def _check_counts(**options: object) -> None:
    for option, value in options.items():
        _require(is_count(value), option, value, "a whole number of at least 1")


def _check_list(option: str, values: object, length: int | None = None, *, or_none: bool = False) -> None:
    works = (
        isinstance(values, Sequence)
        and len(values) == (length or len(values) or 1)
        and all(is_count(value) or (or_none and value is None) for value in values)
    )
    _require(works, option, values, f"a list of {length or 'one or more'} whole numbers of at least 1")


def _check_shares(**options: object) -> None:
    for option, value in options.items():
        works = is_number(value) and 0 <= value < 1
        _require(works, option, value, "a number from 0 to below 1")


def _require(works: bool, option: str, value: object, hint: str) -> None:
    if not works:
        raise UserError(f"decoder.{option}={value} does not work; use {hint}")
