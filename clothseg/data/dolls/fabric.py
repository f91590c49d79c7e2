"""Fabrics: colours and patterns that can be evaluated anywhere on a garment."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

GRAIN = 64


@dataclass(frozen=True)
class Fabric:
    """What a piece is made of.

    Attributes:
        base: colour, float (3,) in 0..255.
        second: the colour that the pattern mixes in.
        pattern: a key of `PATTERNS`.
        size: period of the pattern in figure heights.
        shift: offset of the pattern, so that no two garments line up.
        folds: depth of folds, 0..1.
        gloss: how strongly light models it, 1 is cloth.
    """

    base: np.ndarray
    second: np.ndarray
    pattern: str = "plain"
    size: float = 0.04
    shift: float = 0.0
    folds: float = 0.0
    gloss: float = 1.0

    def colours(self, u: np.ndarray, v: np.ndarray, grain: np.ndarray) -> np.ndarray:
        """Colours before lighting, float32 (n, 3), at places along (u) and across (v) the piece in figure heights.

        Args:
            grain: float32 (GRAIN, GRAIN), smooth noise in 0..1 that tiles.
        """
        weight = PATTERNS[self.pattern](u / self.size + self.shift, v / self.size + self.shift, grain)
        colours = self.base + weight[:, None] * (self.second - self.base)
        if self.folds:
            # Noise drawn out along the piece: creases that run with it.
            colours *= (1 + 3 * self.folds * (_noise(grain, u * 70 + self.shift, v * 330) - 0.5))[:, None]
        return colours.astype(np.float32)

    def tinted(self, factor: float) -> Fabric:
        """The same fabric, darker or lighter."""
        return Fabric(
            np.clip(self.base * factor, 0, 255), np.clip(self.second * factor, 0, 255),
            self.pattern, self.size, self.shift, self.folds, self.gloss,
        )  # fmt: skip


def plain(colour, *, gloss: float = 1.0) -> Fabric:
    """A fabric of one colour."""
    colour = np.asarray(colour, np.float32)
    return Fabric(colour, colour, gloss=gloss)


def grain(rng: np.random.Generator) -> np.ndarray:
    """Smooth noise that tiles, float32 (GRAIN, GRAIN) in 0..1."""
    waves = np.fft.rfft2(rng.standard_normal((GRAIN, GRAIN)))
    fy, fx = np.fft.fftfreq(GRAIN)[:, None], np.fft.rfftfreq(GRAIN)
    noise = np.fft.irfft2(waves / (1 + (np.hypot(fy, fx) * 10) ** 2))
    return ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)


def _noise(grain: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return grain[x.astype(np.int32) % GRAIN, y.astype(np.int32) % GRAIN]


def _wave(x: np.ndarray) -> np.ndarray:
    return np.abs((x % 1) * 2 - 1)


def _dots(u: np.ndarray, v: np.ndarray, grain: np.ndarray) -> np.ndarray:
    row = np.floor(u)
    return (np.hypot(u - row - 0.5, (v + 0.5 * (row % 2)) % 1 - 0.5) < 0.3).astype(np.float32)


def _argyle(u: np.ndarray, v: np.ndarray, grain: np.ndarray) -> np.ndarray:
    return (_wave(u / 2) + _wave(v) > 1).astype(np.float32)


def _tartan(u: np.ndarray, v: np.ndarray, grain: np.ndarray) -> np.ndarray:
    return 0.45 * (_wave(u) > 0.55) + 0.45 * (_wave(v) > 0.55) + 0.1 * (_wave(u * 2 + 0.3) > 0.8)


# Weight of the second colour, 0..1, at places measured in periods of the pattern.
PATTERNS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "plain": lambda u, v, g: np.zeros_like(u),
    "stripes": lambda u, v, g: (_wave(u) > 0.5).astype(np.float32),
    "pinstripes": lambda u, v, g: (_wave(v) > 0.7).astype(np.float32),
    "checks": lambda u, v, g: 0.5 * (_wave(u) > 0.5) + 0.5 * (_wave(v) > 0.5),
    "tartan": _tartan,
    "argyle": _argyle,
    "dots": _dots,
    "floral": lambda u, v, g: (_noise(g, u * 14, v * 14) > 0.6).astype(np.float32),
    "leopard": lambda u, v, g: (np.abs(_noise(g, u * 22, v * 22) - 0.5) < 0.06).astype(np.float32),
    "melange": lambda u, v, g: 0.7 * _noise(g, u * 40, v * 40),
    "knit": lambda u, v, g: 0.35 * _wave(v * 1.5) * (0.5 + _wave(u * 1.5 + 0.5 * _wave(v * 1.5))),
    "ribs": lambda u, v, g: 0.4 * _wave(v),
    "denim": lambda u, v, g: 0.5 * _noise(g, u * 12, v * 50) + 0.35 * np.exp(-((v * 0.7) ** 2)),
    "gradient": lambda u, v, g: np.clip(u * 0.12, 0, 1),
    "herringbone": lambda u, v, g: (_wave(u + _wave(v * 0.5) * 2) > 0.5) * 0.6,
}

# Hue (turns), saturation and value from and to; hues may pass 1.
PALETTES = {
    "black": ((0.55, 0.75), (0.0, 0.2), (0.07, 0.17)),
    "white": ((0.05, 0.17), (0.0, 0.08), (0.88, 0.98)),
    "grey": ((0.5, 0.7), (0.0, 0.1), (0.3, 0.7)),
    "navy": ((0.58, 0.66), (0.45, 0.75), (0.17, 0.36)),
    "denim": ((0.57, 0.63), (0.3, 0.62), (0.3, 0.72)),
    "beige": ((0.07, 0.12), (0.15, 0.42), (0.68, 0.92)),
    "brown": ((0.04, 0.09), (0.45, 0.75), (0.22, 0.5)),
    "camel": ((0.08, 0.1), (0.5, 0.65), (0.62, 0.78)),
    "wine": ((0.93, 1.0), (0.6, 0.85), (0.3, 0.5)),
    "red": ((0.97, 1.02), (0.7, 0.92), (0.65, 0.9)),
    "mustard": ((0.1, 0.14), (0.65, 0.9), (0.7, 0.92)),
    "green": ((0.3, 0.45), (0.4, 0.75), (0.25, 0.6)),
    "olive": ((0.16, 0.23), (0.3, 0.55), (0.28, 0.48)),
    "blue": ((0.55, 0.65), (0.55, 0.85), (0.5, 0.85)),
    "teal": ((0.46, 0.53), (0.45, 0.8), (0.35, 0.7)),
    "pink": ((0.9, 0.99), (0.25, 0.6), (0.8, 0.97)),
    "purple": ((0.72, 0.83), (0.35, 0.65), (0.35, 0.65)),
    "pastel": ((0.0, 1.0), (0.12, 0.3), (0.82, 0.96)),
    "vivid": ((0.0, 1.0), (0.65, 0.9), (0.6, 0.95)),
}


def colour(rng: np.random.Generator, palette: str) -> np.ndarray:
    """A colour of a palette, float32 (3,) in 0..255."""
    hue, saturation, value = (rng.uniform(*bounds) for bounds in PALETTES[palette])
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32) * 255


def fabric(
    rng: np.random.Generator, *, palettes: str, patterns: str, folds: float = 0.06, gloss: float = 1.0
) -> Fabric:
    """A random fabric; palettes and patterns are names with blanks between, named twice where twice as likely."""
    base = colour(rng, str(rng.choice(palettes.split())))
    pattern = str(rng.choice(patterns.split()))
    if pattern in ("melange", "knit", "ribs", "denim", "gradient"):
        # These model light on the weave: a shade of the same colour.
        second = np.clip(base * rng.uniform(1.25, 1.6) + 18, 0, 255) if base.mean() < 150 else base * 0.66
    else:
        second = colour(rng, str(rng.choice(["white", "black", "white", "navy", "vivid", "beige", "pastel"])))
        if np.abs(second - base).mean() < 45:
            second = 255 - base * 0.8
        if pattern in ("pinstripes", "herringbone"):
            second = base + 0.4 * (second - base)
    return Fabric(
        base.astype(np.float32), second.astype(np.float32), pattern,
        size=rng.uniform(0.028, 0.06), shift=rng.uniform(0, 9), folds=folds * rng.uniform(0.4, 1.4), gloss=gloss,
    )  # fmt: skip
