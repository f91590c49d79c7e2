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
from clothseg.models.unet import build_unet
from clothseg.training import scores
from clothseg.training.phases import History, Phase, fit_phases

assert keras.backend.backend() == "jax"
assert "tensorflow" not in sys.modules, "only clothseg.data may import TensorFlow"
encoder = build_encoder("mobilenetv2", image_size=(32, 32), weights=None, input_scaling="matched")
decoder = partial(pix2pix, filters=(8, 8, 8, 8), upsample=upsample)
model = build_unet(encoder, decoder=decoder, classes=5, name="unet")
random = np.random.default_rng(0)
photos = random.integers(0, 256, (2, 32, 32, 3)).astype("uint8")
labels = random.integers(0, 5, (2, 32, 32)).astype("uint8")
before = [np.array(variable) for variable in model.trainable_variables]


def batches(first_step):
    while True:
        yield photos, labels


history = History()
fit_phases(
    model, encoder, training=batches,
    phases=[Phase("all", 1, False, 1, None, 0, lambda: keras.optimizers.RMSprop(0.001))],
    validation=(photos, labels), classes=5, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    placement=nullcontext, jit_compile=True, batch_size=2, history=history, after_epoch=[], after_phase=[],
)
(epoch,) = history.epochs
assert epoch.confusion.sum() == labels.size
assert abs(epoch.scores["val/miou"] - scores.miou(epoch.confusion)) < 1e-5
loss = epoch.scores["train/loss"]
after = [np.array(variable) for variable in model.trainable_variables]
assert np.isfinite(loss), loss
assert sum(not np.array_equal(a, b) for a, b in zip(before, after)) > len(before) / 2
print("trained")
"""


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs jax")
def test_network_trains_under_jax():
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",  # one step: compiling well takes longer than running
    }
    done = subprocess.run([sys.executable, "-c", STEP], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "trained"
