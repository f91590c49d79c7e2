"""From photos of any size to logits: one network or several, of the photo alone or of its mirror image too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from clothseg.data.prepared import fit_photo, frame_of
from clothseg.evaluation.upsample import resize

Window = tuple[float, float, float, float]


@dataclass(frozen=True)
class Member:
    """A network, and how photos are brought to it.

    Attributes:
        model: a Keras model, photos float32 (batch, height, width, 3) in 0..255 to logits (batch, height / stride,
            width / stride, classes).
        size: height and width of what it is shown, in pixels.
        resize: "squash" photos into that size, or "pad" them; as in its training.
        least_batch: photos that it is shown at once at least; of fewer, some twice.
    """

    model: Any
    size: tuple[int, int]
    resize: Literal["squash", "pad"]
    least_batch: int = 1

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """Logits float32 of photos of its size."""
        shown = np.concatenate([batch] * self.least_batch) if len(batch) < self.least_batch else batch
        return np.asarray(self.model.predict_on_batch(shown)[: len(batch)], np.float32)


class Predictor:
    """Photos to logits, averaged over the members and, if asked for, the mirror image.

    The mean of logits is, but for a constant at every pixel that no comparison of classes sees, the logarithm of the
    geometric mean of the probabilities: a class has to be likely in all to be so in the mean.

    Args:
        members: networks with the same classes. One network at several sizes is test-time augmentation by scales,
            several trainings are an ensemble.
        flip: whether to average with the logits of the mirror image, mirrored back.
        offset: float (classes,), added to the logits at every pixel, or None; see `prior_offset`.
    """

    def __init__(self, members: Sequence[Member], *, flip: bool, offset: np.ndarray | None) -> None:
        self.members, self.flip, self.offset = tuple(members), flip, offset

    def __call__(self, photos: Sequence[np.ndarray]) -> list[tuple[np.ndarray, Window]]:
        """Logits of photos.

        Args:
            photos: uint8 (own height, own width, 3) in 0..255 each.

        Returns:
            Of every photo its logits, float32 (height / stride, width / stride, classes), and the top, left, height and
            width, counted in logits, of where in them the photo lies: all of them but for padded photos.
        """
        found = [self._of_member(member, photos) for member in self.members]
        return [self._offset(*_mean(of_photo)) for of_photo in zip(*found, strict=True)]

    def _of_member(self, member: Member, photos: Sequence[np.ndarray]) -> list[tuple[np.ndarray, Window]]:
        batch = np.stack([fit_photo(photo, member.size, resize=member.resize) for photo in photos]).astype(np.float32)
        logits = member.logits(batch)
        if self.flip:
            logits = (logits + member.logits(batch[:, :, ::-1])[:, :, ::-1]) / 2
        frames = [frame_of(photo.shape[:2], member.size, resize=member.resize) for photo in photos]
        return [(own, _window(frame, member.size, own.shape[:2])) for own, frame in zip(logits, frames, strict=True)]

    def _offset(self, logits: np.ndarray, window: Window) -> tuple[np.ndarray, Window]:
        return (logits if self.offset is None else logits + self.offset), window


def prior_offset(pixels: np.ndarray, *, adjustment: float) -> np.ndarray | None:
    """What is added to logits so that rare classes are found more often (Menon et al., ICLR 2021, post hoc).

    Of a network that was trained with plain cross entropy, -log(prior) makes the classes with the highest mean recall
    win instead of those with the highest accuracy.

    Args:
        pixels: int (classes,), of every class in the training photos.
        adjustment: how much of it, at least 0; 1 is all of it.

    Returns:
        float32 (classes,), 0 for classes that do not occur; None where nothing is added.
    """
    if adjustment == 0:
        return None
    shares = pixels / pixels.sum()
    return (-adjustment * np.log(np.where(shares > 0, shares, 1))).astype(np.float32)


def _window(frame: Sequence[int], size: tuple[int, int], logits: tuple[int, ...]) -> Window:
    """A frame (top, left, height, width) in pixels of a picture of a size, counted in as many logits as it has."""
    top, left, tall, wide = (side * own / full for side, own, full in zip(frame, logits * 2, size * 2, strict=True))
    return top, left, tall, wide


def _mean(logits: Sequence[tuple[np.ndarray, Window]]) -> tuple[np.ndarray, Window]:
    """Logits of one photo by several networks as one: where they differ in size or place, on the finest grid."""
    first, window = logits[0]
    if len(logits) == 1:
        return first, window
    if all(own.shape == first.shape and place == window for own, place in logits[1:]):
        return np.mean([own for own, _ in logits], axis=0), window
    size = max((own.shape[:2] for own, _ in logits), key=lambda shape: shape[0] * shape[1])
    mean = np.mean([resize(own, size, window=place) for own, place in logits], axis=0)
    return mean, (0.0, 0.0, float(size[0]), float(size[1]))
