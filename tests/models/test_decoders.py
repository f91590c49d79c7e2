from __future__ import annotations

import keras
import numpy as np
import pytest

from clothseg.errors import UserError
from clothseg.models.decoders import pix2pix, upsample


def feature_maps(channels=(4, 5, 6, 7, 8), size=(32, 64)) -> list[keras.KerasTensor]:
    """Inputs at strides 2, 4, 8, 16 and 32 of a photo of `size`."""
    return [keras.Input((size[0] >> i, size[1] >> i, n)) for i, n in enumerate(channels, start=1)]


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


def test_decoder_climbs_to_the_finest_map_and_appends_its_channels():
    features = feature_maps()
    x = pix2pix(features, filters=(20, 15, 10, 9), upsample=upsample)
    assert x.shape == (None, 16, 32, 9 + 4)


def test_decoder_parameters_are_those_worked_out_by_hand():
    features = feature_maps()
    model = keras.Model(features, pix2pix(features, filters=(20, 15, 10, 9), upsample=upsample))
    # Each block sees the one before and the skip: 8; 20 + 7; 15 + 6; 10 + 5 channels.
    assert model.count_params() == 9 * (8 * 20 + 27 * 15 + 21 * 10 + 15 * 9) + 4 * (20 + 15 + 10 + 9)


def test_every_feature_map_reaches_the_result():
    features = feature_maps()
    model = keras.Model(features, pix2pix(features, filters=(8, 8, 8, 8), upsample=upsample))
    zeros = [np.zeros((1, *x.shape[1:])) for x in features]
    rest = keras.ops.convert_to_numpy(model(zeros))
    for i, x in enumerate(zeros):
        changed = [*zeros[:i], x + 100, *zeros[i + 1 :]]
        assert not np.array_equal(keras.ops.convert_to_numpy(model(changed)), rest), f"map {i}"


def test_decoder_takes_any_block_and_asks_for_the_articles_kernel():
    asked = []

    def nearest(filters: int, size: int) -> keras.Layer:
        asked.append((filters, size))
        return keras.Sequential([keras.layers.UpSampling2D(), keras.layers.Conv2D(filters, size, padding="same")])

    assert pix2pix(feature_maps(), filters=(4, 3, 2, 1), upsample=nearest).shape == (None, 16, 32, 1 + 4)
    assert asked == [(4, 3), (3, 3), (2, 3), (1, 3)]


@pytest.mark.parametrize("filters", [(), (8, 8, 8), (8, 8, 8, 8, 8)])
def test_wrong_number_of_filters_names_the_right_one(filters):
    with pytest.raises(UserError, match=rf"^{len(filters)} decoder filters .* takes 4$"):
        pix2pix(feature_maps(), filters=filters, upsample=upsample)
