"""The easel: pieces are painted one over the other, and photo and labels are read off the same picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from clothseg.data.dolls.body import Limb
from clothseg.data.dolls.fabric import Fabric
from clothseg.data.labels import CLASS_NAMES

# Odd, so that every pixel has a sample at its middle: that sample is its label.
SAMPLES = 3
CIRCLE = np.linspace(0, 2 * np.pi, 20, endpoint=False)


@dataclass(frozen=True)
class Frame:
    """How a fabric lies on a piece: where from, which way, and how far to either side."""

    origin: np.ndarray
    towards: np.ndarray
    half: float


@dataclass(frozen=True)
class _Piece:
    label: int
    fabric: Fabric
    frame: Frame
    box: tuple[int, int, int, int]


class Easel:
    """Collects pieces in figure heights; nothing is coloured before `render`.

    Args:
        size: height and width in pixels.
        ground: x and y of the figure's origin in pixels.
        unit: pixels per figure height.
    """

    def __init__(self, size: tuple[int, int], *, ground: tuple[float, float], unit: float) -> None:
        self._size = size
        self._ground = np.array(ground) * SAMPLES
        self._unit = unit * SAMPLES
        self._order = Image.new("L", (size[1] * SAMPLES, size[0] * SAMPLES))
        self._draw = ImageDraw.Draw(self._order)
        self._pieces: list[_Piece] = []

    def paint(self, label: str, fabric: Fabric, shapes: Sequence[np.ndarray], frame: Frame) -> None:
        """Paint polygons, each float (n, 2), as one piece over everything before."""
        number = len(self._pieces) + 1
        pixels = [shape * self._unit + self._ground - 0.5 for shape in shapes]
        for polygon in pixels:
            self._draw.polygon(polygon.ravel().tolist(), fill=number)
        corners = np.concatenate(pixels)
        limits = np.array(self._order.size)
        low = np.clip(corners.min(0).astype(int) - 1, 0, limits)
        high = np.clip(corners.max(0).astype(int) + 3, 0, limits)
        self._pieces.append(_Piece(CLASS_NAMES.index(label), fabric, frame, (*low, *high)))

    def limb(self, label: str, fabric: Fabric, limb: Limb, *, round_start: bool = True, round_end: bool = True) -> None:
        """Paint a limb, segment by segment, so that the fabric follows it; joints are always round."""
        last = len(limb.points) - 2
        for k in range(last + 1):
            a, b = limb.points[k : k + 2]
            ra, rb = limb.radii[k : k + 2]
            towards = (b - a) / max(float(np.hypot(*(b - a))), 1e-6)
            normal = np.array([towards[1], -towards[0]])
            shapes = [np.stack([a - ra * normal, b - rb * normal, b + rb * normal, a + ra * normal])]
            if k > 0 or round_start:
                shapes.append(disc(a, ra))
            if k == last and round_end:
                shapes.append(disc(b, rb))
            self.paint(label, fabric, shapes, Frame(a, towards, max(ra, rb)))

    def render(self, *, light: tuple[float, float], grain: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Colour what was painted.

        Args:
            light: direction that the light comes from, x and y.
            grain: noise for the fabrics, see `clothseg.data.dolls.fabric.grain`.

        Returns:
            colours: float32 (h, w, 3) in 0..255, already multiplied by coverage.
            coverage: float32 (h, w, 1) in 0..1.
            labels: uint8 (h, w).
        """
        order = np.asarray(self._order)
        shadow = self._contact_shadows(order)
        canvas = np.zeros((*order.shape, 3), np.uint8)
        for number, piece in enumerate(self._pieces, start=1):
            left, top, right, bottom = piece.box
            rows, columns = np.nonzero(order[top:bottom, left:right] == number)
            if not len(rows):
                continue
            rows, columns = rows + top, columns + left
            x = ((columns + 0.5 - self._ground[0]) / self._unit - piece.frame.origin[0]).astype(np.float32)
            y = ((rows + 0.5 - self._ground[1]) / self._unit - piece.frame.origin[1]).astype(np.float32)
            ux, uy = (np.float32(c) for c in piece.frame.towards)
            u, v = x * ux + y * uy, x * uy - y * ux
            side = np.clip(v / np.float32(piece.frame.half), -1, 1)
            facing = np.float32(uy * light[0] - ux * light[1])
            shade = 1.03 + np.float32(piece.fabric.gloss) * (0.17 * facing * side - 0.16 * side * side)
            shade *= shadow[rows, columns]
            colours = piece.fabric.colours(u, v, grain) * shade[:, None]
            canvas[rows, columns] = np.clip(colours, 0, 255)
        label_of = np.array([0, *(piece.label for piece in self._pieces)], np.uint8)
        middle = order[SAMPLES // 2 :: SAMPLES, SAMPLES // 2 :: SAMPLES]
        colours = np.asarray(Image.fromarray(canvas).reduce(SAMPLES), np.float32)
        covered = Image.fromarray(np.where(order > 0, np.uint8(255), np.uint8(0)))
        coverage = np.asarray(covered.reduce(SAMPLES), np.float32)[..., None] / 255
        return colours, coverage, label_of[middle]

    def _contact_shadows(self, order: np.ndarray) -> np.ndarray:
        """Factor on the light, float32 of the shape of `order`: darker beside whatever lies on top."""
        spread = self._order.filter(ImageFilter.BoxBlur(0.008 * self._unit))
        above = np.asarray(spread, np.int16) - order
        return (1 - 0.07 * np.clip(above, 0, 4)).astype(np.float32)


def smooth(points) -> np.ndarray:
    """A closed outline with its corners cut (Chaikin), float (4 n, 2)."""
    points = np.asarray(points, float)
    for _ in range(2):
        after = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], axis=1).reshape(-1, 2)
    return points


def disc(centre: np.ndarray, radius: float) -> np.ndarray:
    """A circle, float (n, 2)."""
    return ellipse(centre, (radius, radius))


def ellipse(centre: np.ndarray, radii: tuple[float, float]) -> np.ndarray:
    """An upright ellipse, float (n, 2)."""
    return centre + np.stack([np.cos(CIRCLE) * radii[0], np.sin(CIRCLE) * radii[1]], axis=1)
