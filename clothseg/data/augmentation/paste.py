"""Copy-paste: clothes from one photo put onto another (Ghiasi et al. 2021, "Simple Copy-Paste")."""

from __future__ import annotations

import numpy as np

from clothseg.data.augmentation.keyed import uniform


class Donors:
    """The training photos, by the classes they have.

    Args:
        rows: int (m,), numbers of the photos that are trained on.
        pixels: int (m, classes), how many pixels of each class every one of them has, background first.
        rarity: how much more often rare classes are drawn: a class that n photos have is drawn with a probability
            proportional to 1 / n ** rarity. 0 draws all classes alike.
    """

    def __init__(self, rows: np.ndarray, pixels: np.ndarray, *, rarity: float) -> None:
        present = np.asarray(pixels) > 0
        present[:, 0] = False  # background is not a thing that could be put on
        photos = present.sum(axis=0)
        self.classes = np.flatnonzero(photos)
        self._rows = [np.asarray(rows, np.int64)[present[:, value]] for value in self.classes]
        weights = photos[self.classes] ** -float(rarity)
        self._cumulative = np.cumsum(weights) / weights.sum() if len(weights) else np.zeros(0)

    def draw(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What examples with these keys, int64 (batch, parts), get if they get anything.

        Returns:
            The photos it comes from, int64 (batch,), and its classes, uint8 (batch,).
        """
        first, second = uniform(keys, "copy_paste.class", 1)[:, 0], uniform(keys, "copy_paste.photo", 1)[:, 0]
        places = np.searchsorted(self._cumulative, first, side="right").clip(max=len(self.classes) - 1)
        rows = [
            self._rows[place][int(part * len(self._rows[place]))] for place, part in zip(places, second, strict=True)
        ]
        return np.array(rows, np.int64), self.classes[places].astype(np.uint8)
