from __future__ import annotations

from collections.abc import Callable
from functools import partial

import keras
import numpy as np
import pytest

from clothseg.errors import UserError
from clothseg.models.decoders import deeplabv3plus, fpn, pix2pix, unet, upsample

CLASSES = 3

# Channels at strides 2 to 32, as backbones have them, divided by eight.
CHANNELS = {"mobilenetv2": (12, 18, 24, 72, 40), "densenet121": (8, 32, 64, 128, 128)}

UNET = partial(
    unet,
    filters=(10, 9, 8, 7),
    skip_filters=(6, 5, 4, 3),
    convolutions=2,
    separable=False,
    interpolation="bilinear",
    dropout=0,
    batch_norm_momentum=0.9,
    output_stride=2,
)
FPN = partial(fpn, filters=8, branch_filters=6, dropout=0, batch_norm_momentum=0.9, output_stride=4)
DEEPLAB = partial(
    deeplabv3plus,
    filters=8,
    pyramid_stride=16,
    rates=(1, 3),
    low_level_filters=5,
    dropout=0,
    batch_norm_momentum=0.9,
)

# Every decoder and the stride of its logits.
DECODERS: dict[str, tuple[Callable[..., keras.KerasTensor], int]] = {
    "pix2pix": (partial(pix2pix, filters=(10, 8, 7, 6), upsample=upsample), 1),
    "unet": (UNET, 2),
    "unet to stride 1": (partial(UNET, filters=(10, 9, 8, 7, 6), output_stride=1), 1),
    "unet to stride 4": (partial(UNET, filters=(10, 9, 8), skip_filters=4, output_stride=4), 4),
    "unet, separable": (partial(UNET, separable=True, skip_filters=None, interpolation="nearest"), 2),
    "fpn": (FPN, 4),
    "fpn to stride 2": (partial(FPN, output_stride=2), 2),
    "deeplabv3plus": (DEEPLAB, 4),
    "deeplabv3plus on stride 32": (partial(DEEPLAB, pyramid_stride=32), 4),
}

each_decoder = pytest.mark.parametrize(("decoder", "stride"), DECODERS.values(), ids=DECODERS)


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(0)


@pytest.fixture
def mixed_bfloat16():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(policy)


def feature_maps(channels=(4, 5, 6, 7, 8), size=(32, 64)) -> list[keras.KerasTensor]:
    """Inputs at strides 2, 4, 8, 16 and 32 of a photo of `size`."""
    return [keras.Input((size[0] >> i, size[1] >> i, n)) for i, n in enumerate(channels, start=1)]


def build(decoder: Callable[..., keras.KerasTensor], **how) -> keras.Model:
    features = feature_maps(**how)
    return keras.Model(features, decoder(features, classes=CLASSES))


def maps_for(model: keras.Model, batch: int = 2) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(size=(batch, *shape[1:])).astype("float32") for shape in model.input_shape]


def call(model: keras.Model, maps: list[np.ndarray]) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(maps))


# The contract, for every decoder


@each_decoder
@pytest.mark.parametrize(
    ("backbone", "size"), [("mobilenetv2", (96, 64)), ("densenet121", (64, 160)), ("densenet121", (32, 32))]
)
def test_logits_have_the_stride_of_the_decoder(decoder, stride, backbone, size):
    logits = decoder(feature_maps(CHANNELS[backbone], size), classes=CLASSES)
    assert logits.shape == (None, size[0] // stride, size[1] // stride, CLASSES)


@each_decoder
def test_smallest_photo_gives_finite_logits_of_the_declared_shape(decoder, stride):
    model = build(decoder, size=(32, 32))
    logits = call(model, maps_for(model))
    assert logits.shape == (2, 32 // stride, 32 // stride, CLASSES)
    assert np.isfinite(logits).all() and np.ptp(logits) > 0


@each_decoder
def test_logits_are_float32_and_the_rest_is_computed_as_the_policy_says(decoder, stride, mixed_bfloat16):
    model = build(decoder)
    head = model.get_layer("logits")
    assert model.output is head.output and head.compute_dtype == "float32"
    assert model(maps_for(model)).dtype == "float32"
    others = {layer.compute_dtype for layer in model.layers if layer is not head}
    assert others == {"bfloat16"}


@each_decoder
def test_a_step_moves_every_weight_and_lowers_the_loss(decoder, stride):
    model = build(decoder, size=(64, 64))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.01), loss=loss, run_eagerly=True)
    maps = maps_for(model)
    labels = np.random.default_rng(1).integers(0, CLASSES, (2, *model.output_shape[1:3]))
    before = [keras.ops.convert_to_numpy(variable) for variable in model.variables]
    losses = [float(loss(labels, model(maps, training=True)))]
    model.train_on_batch(maps, labels)
    unmoved = [
        variable.path
        for variable, old in zip(model.variables, before, strict=True)
        if np.array_equal(keras.ops.convert_to_numpy(variable), old)
    ]
    losses.append(float(loss(labels, model(maps, training=True))))
    assert len(before) > 10 and not unmoved
    assert losses[1] < losses[0]


@each_decoder
def test_weights_survive_a_file(decoder, stride, tmp_path):
    saved, other = build(decoder), build(decoder)
    maps = maps_for(saved)
    assert not np.array_equal(call(saved, maps), call(other, maps))
    saved.save_weights(tmp_path / "decoder.weights.h5")
    other.load_weights(tmp_path / "decoder.weights.h5")
    np.testing.assert_array_equal(call(saved, maps), call(other, maps))


REACHING = {
    "pix2pix": (2, 4, 8, 16, 32),
    "unet": (2, 4, 8, 16, 32),
    "unet to stride 1": (2, 4, 8, 16, 32),
    "unet to stride 4": (4, 8, 16, 32),
    "unet, separable": (2, 4, 8, 16, 32),
    "fpn": (4, 8, 16, 32),
    "fpn to stride 2": (2, 4, 8, 16, 32),
    "deeplabv3plus": (4, 16, 32),
    "deeplabv3plus on stride 32": (4, 32),
}


@pytest.mark.parametrize("name", DECODERS)
def test_result_depends_on_these_maps_and_no_others(name):
    model = build(DECODERS[name][0])
    maps = maps_for(model)
    rest = call(model, maps)
    reaching = []
    for i, x in enumerate(maps):
        if not np.array_equal(call(model, [*maps[:i], x + 1, *maps[i + 1 :]]), rest):
            reaching.append(2 << i)
    assert tuple(reaching) == REACHING[name]


@pytest.mark.parametrize("name", [name for name in DECODERS if name != "pix2pix"])
def test_dropout_and_momentum_are_those_asked_for(name):
    decoder = partial(DECODERS[name][0], dropout=0.5, batch_norm_momentum=0.75)
    model = build(decoder)
    assert {layer.momentum for layer in layers(model, keras.layers.BatchNormalization)} == {0.75}
    (dropout,) = layers(model, keras.layers.SpatialDropout2D)
    assert dropout.rate == 0.5
    assert dropout.output is model.get_layer("logits").input


def layers(model: keras.Model, kind: type) -> list[keras.Layer]:
    return [layer for layer in model.layers if isinstance(layer, kind)]


@pytest.mark.parametrize(
    ("decoder", "wrong", "hint"),
    [
        (UNET, {"filters": (8, 8, 8)}, r"decoder.filters=\(8, 8, 8\) does not work; use a list of 4 whole numbers"),
        (UNET, {"filters": 8}, "decoder.filters=8 does not work; use a list of 4 "),
        (UNET, {"output_stride": 1}, "decoder.filters=.* use a list of 5 "),
        (UNET, {"filters": (8, 8, 8, 0)}, "decoder.filters=.*0.* of at least 1$"),
        (UNET, {"filters": (8, 8, 8, None)}, "decoder.filters=.*None.* of at least 1$"),
        (UNET, {"skip_filters": (8, 8, 8)}, "decoder.skip_filters=.* use a list of 4 "),
        (UNET, {"skip_filters": 0}, "decoder.skip_filters="),
        (UNET, {"output_stride": 3}, "decoder.output_stride=3 does not work; use 1, 2 or 4$"),
        (UNET, {"convolutions": 0}, "decoder.convolutions=0 does not work; use a whole number of at least 1$"),
        (UNET, {"interpolation": "bicubic"}, "decoder.interpolation=bicubic does not work; use nearest or bilinear$"),
        (UNET, {"dropout": 1}, "decoder.dropout=1 does not work; use a number from 0 to below 1$"),
        (UNET, {"dropout": "much"}, "decoder.dropout=much does not work"),
        (UNET, {"dropout": True}, "decoder.dropout=True does not work"),
        (UNET, {"separable": "yes"}, "decoder.separable=yes does not work; use true or false"),
        (UNET, {"batch_norm_momentum": -0.1}, "decoder.batch_norm_momentum=-0.1 does not work"),
        (FPN, {"output_stride": 8}, "decoder.output_stride=8 does not work; use 2 or 4$"),
        (FPN, {"filters": 0.5}, "decoder.filters=0.5 does not work"),
        (FPN, {"branch_filters": -1}, "decoder.branch_filters=-1 does not work"),
        (FPN, {"dropout": -1}, "decoder.dropout=-1 does not work"),
        (DEEPLAB, {"pyramid_stride": 8}, "decoder.pyramid_stride=8 does not work; use 16 or 32$"),
        (DEEPLAB, {"rates": ()}, "decoder.rates=.* use a list of one or more whole numbers"),
        (DEEPLAB, {"rates": (0,)}, "decoder.rates=.*0.* does not work"),
        (DEEPLAB, {"rates": 6}, "decoder.rates=6 does not work"),
        (DEEPLAB, {"low_level_filters": 0}, "decoder.low_level_filters=0 does not work"),
    ],
)
def test_option_that_does_not_work_is_named_with_one_that_does(decoder, wrong, hint):
    with pytest.raises(UserError, match=f"^{hint}") as error:
        partial(decoder, **wrong)(feature_maps(), classes=CLASSES)
    assert "\n" not in str(error.value)


# pix2pix


def test_block_doubles_the_size_and_clips_at_zero():
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 4))
    y = keras.ops.convert_to_numpy(upsample(6, 3)(x))
    assert y.shape == (2, 6, 10, 6)
    assert y.min() == 0 and y.max() > 0


def test_block_is_the_pix2pix_block():
    block = upsample(6, 3)
    block.build((None, 4, 4, 5))
    convolution, norm, _ = block.layers
    assert [type(layer) for layer in block.layers] == [
        keras.layers.Conv2DTranspose,
        keras.layers.BatchNormalization,
        keras.layers.ReLU,
    ]
    config = convolution.get_config()
    assert (config["filters"], config["kernel_size"], config["strides"]) == (6, (3, 3), (2, 2))
    assert (config["padding"], config["use_bias"], config["activation"]) == ("same", False, "linear")
    initializer = convolution.kernel_initializer
    assert isinstance(initializer, keras.initializers.RandomNormal)
    assert (initializer.mean, initializer.stddev) == (0.0, 0.02)
    assert (norm.epsilon, norm.momentum) == (1e-3, 0.99)
    # kernel 3 x 3 x 5 x 6 = 270; gamma, beta and two statistics 4 x 6 = 24
    assert block.count_params() == 294


def test_block_is_that_of_tensorflow_examples():
    original = pytest.importorskip("tensorflow_examples.models.pix2pix.pix2pix")
    ours, theirs = upsample(6, 3), original.upsample(6, 3)
    for block in (ours, theirs):
        block.build((None, 4, 4, 5))
    assert ours.count_params() == theirs.count_params()
    for a, b in zip(ours.layers, theirs.layers, strict=True):
        assert type(a) is type(b)
        ignored = {"name", "kernel_initializer"}  # compared below
        a_config, b_config = ({k: v for k, v in x.get_config().items() if k not in ignored} for x in (a, b))
        assert a_config == b_config
    a, b = (block.layers[0].kernel_initializer for block in (ours, theirs))
    assert (a.mean, a.stddev) == (b.mean, b.stddev)


def pix2pix_model(filters=(20, 15, 10, 9)) -> keras.Model:
    return build(partial(pix2pix, filters=filters, upsample=upsample))


def test_decoder_climbs_to_the_finest_map_and_appends_its_channels():
    model = pix2pix_model()
    assert model.get_layer("logits").input.shape == (None, 16, 32, 9 + 4)
    assert model.output_shape == (None, 32, 64, CLASSES)


def test_pix2pix_parameters_are_those_worked_out_by_hand():
    # Each block sees the one before and the skip: 8; 20 + 7; 15 + 6; 10 + 5 channels. The head sees 9 + 4.
    blocks = 9 * (8 * 20 + 27 * 15 + 21 * 10 + 15 * 9) + 4 * (20 + 15 + 10 + 9)
    assert pix2pix_model().count_params() == blocks + 9 * 13 * CLASSES + CLASSES


def test_decoder_takes_any_block_and_asks_for_the_articles_kernel():
    asked = []

    def nearest(filters: int, size: int) -> keras.Layer:
        asked.append((filters, size))
        return keras.Sequential([keras.layers.UpSampling2D(), keras.layers.Conv2D(filters, size, padding="same")])

    logits = pix2pix(feature_maps(), classes=CLASSES, filters=(4, 3, 2, 1), upsample=nearest)
    assert logits.shape == (None, 32, 64, CLASSES)
    assert asked == [(4, 3), (3, 3), (2, 3), (1, 3)]


@pytest.mark.parametrize("filters", [(), (8, 8, 8), (8, 8, 8, 8, 8)])
def test_wrong_number_of_filters_names_the_right_one(filters):
    with pytest.raises(UserError, match=r"^decoder.filters=.* does not work; use a list of 4 whole numbers"):
        pix2pix_model(filters)


# unet


def test_unet_parameters_are_those_worked_out_by_hand():
    # The first of two convolutions in each step sees 8 + 6; 10 + 5; 9 + 4; 8 + 3 channels.
    squeezed = (7 * 6 + 6) + (6 * 5 + 5) + (5 * 4 + 4) + (4 * 3 + 3)
    convolutions = 9 * (14 * 10 + 10 * 10 + 15 * 9 + 9 * 9 + 13 * 8 + 8 * 8 + 11 * 7 + 7 * 7)
    norms = 2 * 4 * (10 + 9 + 8 + 7)
    assert build(UNET).count_params() == squeezed + convolutions + norms + 7 * CLASSES + CLASSES


def test_separable_convolutions_have_the_parameters_worked_out_by_hand():
    decoder = partial(UNET, filters=(10, 9, 8), skip_filters=None, convolutions=1, separable=True, output_stride=4)
    # Skips as they are: 8 + 7; 10 + 6; 9 + 5 channels.
    depthwise = (9 + 4) * (15 + 16 + 14)
    pointwise = 15 * 10 + 16 * 9 + 14 * 8 + 4 * (10 + 9 + 8)
    assert build(decoder).count_params() == depthwise + pointwise + 8 * CLASSES + CLASSES


def test_skips_are_squeezed_to_one_number_to_each_its_own_or_not_at_all():
    def appended(skip_filters) -> list[int]:
        model = build(partial(UNET, skip_filters=skip_filters))
        return [layer.input[1].shape[-1] for layer in layers(model, keras.layers.Concatenate)]

    assert appended(3) == [3, 3, 3, 3]
    assert appended((6, None, 4, 3)) == [6, 6, 4, 3]
    assert appended(None) == [7, 6, 5, 4]


def test_step_to_the_size_of_the_photo_has_nothing_to_append():
    decoder = partial(UNET, filters=(10, 9, 8, 7, 6), output_stride=1)
    model = build(decoder)
    assert len(layers(model, keras.layers.UpSampling2D)) == 5
    assert len(layers(model, keras.layers.Concatenate)) == 4


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_maps_are_doubled_as_asked(interpolation):
    doubling = layers(build(partial(UNET, interpolation=interpolation)), keras.layers.UpSampling2D)
    assert [layer.interpolation for layer in doubling] == [interpolation] * 4


# fpn


def test_fpn_parameters_are_those_worked_out_by_hand():
    lateral = (5 + 6 + 7 + 8) * 8 + 4 * 8
    # Convolutions of the branch at strides 4, 8, 16 and 32: one each to begin with, then one between doublings.
    first, more = 4 * (9 * 8 * 6 + 4 * 6), (1 + 2) * (9 * 6 * 6 + 4 * 6)
    assert build(FPN).count_params() == lateral + first + more + 6 * CLASSES + CLASSES


def test_pyramid_adds_coarser_maps_to_finer_ones():
    model = build(FPN)
    sums = layers(model, keras.layers.Add)
    pyramid, branch = sums[:-1], sums[-1]
    assert [layer.output.shape[1:] for layer in pyramid] == [(2, 4, 8), (4, 8, 8), (8, 16, 8)]
    assert [x.shape[1:] for x in branch.input] == [(8, 16, 6)] * 4


# deeplabv3plus


def test_deeplab_parameters_are_those_worked_out_by_hand():
    def convolution(have: int, want: int) -> int:
        return have * want + 4 * want

    def separable(have: int, want: int) -> int:
        return 9 * have + 4 * have + convolution(have, want)

    seen = 7 + 8  # the maps of strides 16 and 32
    pyramid = convolution(seen, 8) + 2 * separable(seen, 8) + (seen * 8 + 8) + convolution(4 * 8, 8)
    decoder = convolution(5, 5) + separable(8 + 5, 8) + separable(8, 8)
    assert build(DEEPLAB).count_params() == pyramid + decoder + 8 * CLASSES + CLASSES


def test_rates_dilate_the_pyramid_alone():
    dilations = [layer.dilation_rate for layer in layers(build(DEEPLAB), keras.layers.DepthwiseConv2D)]
    assert sorted(dilations) == [(1, 1), (1, 1), (1, 1), (3, 3)]


def test_image_pooling_carries_a_change_to_the_far_corner():
    model = build(partial(DEEPLAB, rates=(1,)), size=(512, 512))
    maps = maps_for(model, batch=1)
    before = call(model, maps)
    maps[4][0, 0, 0] += 100
    changed = ~np.isclose(before, call(model, maps), rtol=0, atol=1e-6).all(axis=(0, 3))
    # Convolutions see no farther than a few pixels of stride 32.
    assert changed.shape == (128, 128) and changed[-1, -1]
