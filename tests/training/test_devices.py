"""Two devices train as one does.

Tried on two logical CPUs, in a process of its own: TensorFlow divides them only at start.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from clothseg.errors import UserError
from clothseg.training.devices import placement

CODE = """
import sys
import numpy as np, tensorflow as tf, keras
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from clothseg.data.augmentation.fixed import FixedCopies
from clothseg.data.pipeline import evaluation_batches, training_batches
from clothseg.models.fused import fuse
from clothseg.models.unet import Network
from clothseg.training.devices import placement
from clothseg.training.losses import CrossEntropy
from clothseg.training.history import History
from clothseg.training.phases import Phase, Rollback, fit_phases

random = np.random.default_rng(0)
photos = random.integers(0, 256, (18, 8, 8, 3), dtype=np.uint8)
labels = random.integers(0, 3, (18, 8, 8), dtype=np.uint8)

def trained(devices, normed=False, fused=False):
    keras.utils.set_random_seed(0)
    place = placement(devices)
    with place():
        photo = keras.Input((8, 8, 3))
        maps = keras.layers.Conv2D(4, 3, padding="same")(keras.layers.Rescaling(1 / 255)(photo))
        norm = keras.layers.BatchNormalization if normed else keras.layers.Identity
        encoder = keras.Model(photo, norm()(maps))
        model = keras.Model(photo, keras.layers.Conv2D(3, 1)(norm()(encoder(photo))))
        if fused:
            fuse(model, deterministic=True)
    history = History()
    network = Network(encoder, model, model)
    loss = CrossEntropy(class_weights=None, label_smoothing=0.0, prior=None, adjustment=0.0)
    sgd = lambda factor: keras.optimizers.SGD(0.1)
    fit_phases(
        phases=[Phase("a", network, 1, True, False, 2, None, 0, None, sgd),
                Phase("b", network, 1, False, False, 3, None, 2, None, sgd)],
        training=lambda phase: training_batches(
            photos, labels, np.arange(12),
            augmentation=FixedCopies(copies=[], label_resize="nearest", shuffle_buffer=None),
            weights=None, batch_size=4, seed=0, first_step=phase.first_step, label_stride=1),
        validation=lambda phase: evaluation_batches(photos, labels, np.arange(12, 18), batch_size=4),
        classes=3, loss=loss, presence_weight=0.0, placement=place,
        jit_compile=False, batch_size=4, metric="val/miou", rollback=Rollback(0, 0.1, lambda phase, step: [], print),
        history=history,
        state=None, keep=lambda state: None, after_first_step=[], after_epoch=[], after_phase=[])
    return model.get_weights(), history.epochs[-1]

# A norm of each half of a batch is another than that of all, so that those of two devices are compared with their own.
ways = ({"devices": 2, "normed": True}, {"devices": 2, "normed": True, "fused": True})
if sys.argv[1] == "devices":
    ways = ({"devices": 1}, {"devices": 2})
(one, first), (two, second) = (trained(**way) for way in ways)
for a, b in zip(one, two):
    np.testing.assert_allclose(a, b, atol=1e-5)
np.testing.assert_array_equal(first.confusion, second.confusion)
assert second.confusion.sum() == 6 * 8 * 8, second.confusion.sum()
for name in ("val/accuracy", "val/miou", "val/loss", "train/loss", "train/miou"):
    np.testing.assert_allclose(first.scores[name], second.scores[name], rtol=1e-4, err_msg=name)
print("equal")
"""


@pytest.mark.long
@pytest.mark.parametrize("what", ["devices", "norms"])
def test_two_devices_train_as_one_does_and_with_fused_norms_as_with_keras_own(what):
    command = [sys.executable, "-c", CODE, what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.strip() == "equal", done.stderr[-3000:]


def test_more_devices_than_there_are_is_told():
    with pytest.raises(UserError, match=r"devices=64, but this machine has \d+"):
        placement(64)
