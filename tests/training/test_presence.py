"""The auxiliary head learns which classes a photo has, however few their pixels."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest

from clothseg.data.labels import IGNORE
from clothseg.training.presence import PresenceLoss, without_head


def test_loss_is_the_mean_binary_cross_entropy_of_presence():
    # The first photo has the classes 0 and 2, the second 1 alone.
    labels = np.array([[[0, 0], [0, 2]], [[1, 1], [1, IGNORE]]], np.uint8)
    logits = np.array([[0.0, 0.0, 2.0], [-1.0, 3.0, 0.0]], np.float32)
    softplus = lambda x: math.log1p(math.exp(x))  # noqa: E731
    first = softplus(0) + softplus(0) + softplus(-2.0)
    second = softplus(-1.0) + softplus(-3.0) + softplus(0)
    loss = PresenceLoss(classes=3)
    assert keras.ops.convert_to_numpy(loss.call(labels, logits)) == pytest.approx([first / 3, second / 3], rel=1e-5)
    assert float(loss(labels, logits)) == pytest.approx((first + second) / 6, rel=1e-5)


@pytest.mark.parametrize("head", ["logits", "gated_logits"])
def test_scores_are_named_as_without_the_head_and_losses_tell_the_heads_apart(head):
    logs = {"loss": 3.0, f"{head}_loss": 2.0, "presence_loss": 1.0, f"{head}_miou": 0.5, f"val_{head}_miou": 0.25}
    named = {"loss": 3.0, f"{head}_loss": 2.0, "presence_loss": 1.0, "miou": 0.5, "val_miou": 0.25}
    assert without_head(logs) == named


def test_a_photo_in_which_nothing_counts_says_nothing_of_what_is_there():
    labels = np.array([[[0, 2]], [[IGNORE, IGNORE]]], np.uint8)
    losses = keras.ops.convert_to_numpy(PresenceLoss(classes=3).call(labels, np.full((2, 3), 3, np.float32)))
    assert losses[0] > 0 and losses[1] == 0
