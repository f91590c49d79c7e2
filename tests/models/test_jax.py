from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

STEP = """
import sys
from contextlib import nullcontext
from functools import partial

import keras
import numpy as np

from clothseg.models.backbones import build_encoder
from clothseg.models.decoders import pix2pix, upsample
from clothseg.models.unet import build_network
from clothseg.training import scores
from clothseg.training.history import History
from clothseg.training.phases import Phase, Rollback, fit_phases

assert keras.backend.backend() == "jax"
assert "tensorflow" not in sys.modules, "only clothseg.data may import TensorFlow"
encoder = build_encoder("mobilenetv2", image_size=(32, 32), weights=None, input_scaling="matched")
decoder = partial(pix2pix, filters=(8, 8, 8, 8), upsample=upsample)
network = build_network(encoder, decoder=decoder, classes=5, presence=False, gate=0.0, name="unet")
model = network.model
random = np.random.default_rng(0)
photos = random.integers(0, 256, (2, 32, 32, 3)).astype("uint8")
labels = random.integers(0, 5, (2, 32, 32)).astype("uint8")
before = [np.array(variable) for variable in model.trainable_variables]


def batches(first_step):
    while True:
        yield photos, labels


history = History()
fit_phases(
    phases=[Phase("all", network, 1, False, False, 1, None, 0, None, lambda factor: keras.optimizers.RMSprop(0.001))],
    training=lambda phase: batches(phase.first_step), validation=lambda phase: (photos, labels), classes=5,
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), presence_weight=0.0, placement=nullcontext,
    jit_compile=True, batch_size=2, metric="val/miou",
    rollback=Rollback(0, 0.1, lambda phase, step: [], print), history=history, state=None,
    keep=lambda state: None, after_first_step=[], after_epoch=[], after_phase=[],
)
(epoch,) = history.epochs
assert epoch.confusion.sum() == labels.size
assert abs(epoch.scores["val/miou"] - scores.miou(scores.Counts.of(epoch.confusion))) < 1e-5
loss = epoch.scores["train/loss"]
after = [np.array(variable) for variable in model.trainable_variables]
assert np.isfinite(loss), loss
assert sum(not np.array_equal(a, b) for a, b in zip(before, after)) > len(before) / 2
print("trained")
"""


DECODERS = """
import sys

import keras
import numpy as np

from clothseg.models.decoders import deeplabv3plus, fpn, unet

assert keras.backend.backend() == "jax"
assert "tensorflow" not in sys.modules, "only clothseg.data may import TensorFlow"
random = np.random.default_rng(0)
shared = {"classes": 5, "dropout": 0.1, "batch_norm_momentum": 0.9}
decoders = [
    lambda x: unet(
        x, filters=(8, 8, 8), skip_filters=4, convolutions=1, separable=True, interpolation="bilinear", output_stride=4,
        **shared,
    ),
    lambda x: fpn(x, filters=8, branch_filters=8, output_stride=4, **shared),
    lambda x: deeplabv3plus(x, filters=8, pyramid_stride=16, rates=(1, 3), low_level_filters=4, **shared),
]
for decoder in decoders:
    features = [keras.Input((64 >> i, 32 >> i, 4)) for i in range(1, 6)]
    model = keras.Model(features, decoder(features))
    maps = [random.normal(size=(2, *x.shape[1:])).astype("float32") for x in features]
    labels = random.integers(0, 5, (2, 16, 8))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.01), loss=loss, jit_compile=True)
    before = [np.array(variable) for variable in model.trainable_variables]
    model.train_on_batch(maps, labels)
    assert not any(np.array_equal(a, b) for a, b in zip(before, model.trainable_variables))
print("trained")
"""


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs jax")
@pytest.mark.parametrize(
    "code", [pytest.param(STEP, id="network"), pytest.param(DECODERS, id="decoders", marks=pytest.mark.long)]
)
def test_trains_under_jax(code):
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",  # one step: compiling well takes longer than running
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "trained"
