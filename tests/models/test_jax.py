from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

STEP = """
import sys
from functools import partial

import keras
import numpy as np

from clothseg.models.backbones import build_encoder
from clothseg.models.decoders import pix2pix, upsample
from clothseg.models.unet import build_unet

assert keras.backend.backend() == "jax"
assert "tensorflow" not in sys.modules, "clothseg.models must not import TensorFlow"
encoder = build_encoder("mobilenetv2", image_size=(32, 32), weights=None, input_scaling="matched")
decoder = partial(pix2pix, filters=(8, 8, 8, 8), upsample=upsample)
model = build_unet(encoder, decoder=decoder, classes=5, name="unet")
random = np.random.default_rng(0)
photos = random.integers(0, 256, (2, 32, 32, 3)).astype("uint8")
labels = random.integers(0, 5, (2, 32, 32)).astype("uint8")
model.compile(optimizer="sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
before = [np.array(variable) for variable in model.trainable_variables]
loss = model.fit(photos, labels, batch_size=2, verbose=0).history["loss"][0]
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
