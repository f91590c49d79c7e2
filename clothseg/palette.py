"""Colours of the classes."""

from __future__ import annotations

import numpy as np

from clothseg.data.labels import IGNORE
from clothseg.errors import UserError

# One colour per value of `clothseg.data.labels.CLASS_NAMES`. Found once by a search: the farthest points among
# 18 x 18 x 18 sRGB colours of CIELAB lightness 18 to 90, by the smaller of CIEDE2000 and 0.42 times the Euclidean
# distance, improved by moving one colour of the closest pair until nothing was gained (background, skin and hair held
# fixed). The 16 classes with the most pixels then got those of the 59 that differ most with normal and with deuteranope
# vision, and within each group annealing kept alike colours off classes that are worn together; bag and jeans were
# exchanged by hand, so that jeans are blue. The closest two are 28.4 apart in CIELAB (Euclidean), 11.9 by CIEDE2000;
# the closest two of those 16 are 20.7 apart by CIEDE2000.
PALETTE = np.array(
    [
        (228, 228, 230),  # background
        (120, 0, 150),  # accessories
        (180, 90, 15),  # bag
        (60, 255, 0),  # belt
        (255, 225, 60),  # blazer
        (75, 135, 255),  # blouse
        (0, 135, 165),  # bodysuit
        (30, 60, 165),  # boots
        (165, 225, 180),  # bra
        (210, 0, 180),  # bracelet
        (210, 240, 0),  # cape
        (240, 150, 0),  # cardigan
        (255, 180, 210),  # clogs
        (90, 15, 45),  # coat
        (0, 105, 90),  # dress
        (180, 180, 105),  # earrings
        (135, 75, 135),  # flats
        (165, 150, 0),  # glasses
        (255, 120, 150),  # gloves
        (92, 58, 34),  # hair
        (105, 15, 0),  # hat
        (165, 15, 60),  # heels
        (255, 195, 105),  # hoodie
        (0, 255, 210),  # intimate
        (105, 105, 135),  # jacket
        (30, 45, 90),  # jeans
        (45, 225, 255),  # jumper
        (15, 135, 0),  # leggings
        (150, 45, 240),  # loafers
        (255, 105, 0),  # necklace
        (135, 150, 135),  # panties
        (75, 105, 0),  # pants
        (0, 195, 30),  # pumps
        (0, 0, 165),  # purse
        (135, 105, 30),  # ring
        (15, 150, 90),  # romper
        (60, 90, 255),  # sandals
        (0, 105, 180),  # scarf
        (15, 180, 165),  # shirt
        (30, 15, 255),  # shoes
        (30, 60, 15),  # shorts
        (232, 182, 148),  # skin
        (135, 180, 0),  # skirt
        (165, 0, 105),  # sneakers
        (45, 60, 60),  # socks
        (180, 0, 0),  # stockings
        (165, 90, 105),  # suit
        (255, 0, 0),  # sunglasses
        (210, 165, 255),  # sweater
        (255, 120, 210),  # sweatshirt
        (165, 180, 225),  # swimwear
        (255, 15, 255),  # t-shirt
        (180, 120, 255),  # tie
        (180, 240, 135),  # tights
        (0, 180, 255),  # top
        (255, 30, 150),  # vest
        (255, 0, 90),  # wallet
        (255, 135, 105),  # watch
        (30, 240, 135),  # wedges
    ],
    np.uint8,
)
PALETTE.flags.writeable = False

IGNORED = np.array([40, 40, 40], np.uint8)


def palette(classes: int) -> np.ndarray:
    """Colours for a data set with this many classes: uint8 (classes, 3), RGB 0..255, background (0) a quiet grey.

    59 classes get `PALETTE`. Fewer get those of its colours that lie farthest apart, more get it and further colours,
    each as far from all before as can be. The same number always gives the same colours.

    Raises:
        UserError: not 1 to 255 classes (labels are uint8, and 255 is `IGNORE`).
    """
    if not 1 <= classes <= IGNORE:
        raise UserError(f"a palette of {classes} colours: labels are one byte, so 1 to 255 classes work")
    if classes == len(PALETTE):
        return PALETTE
    if classes < len(PALETTE):
        return _farthest(PALETTE[:1], PALETTE, classes)
    steps = np.linspace(0, 255, 16).round().astype(np.uint8)
    lattice = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    lightness = lab(lattice)[:, 0]
    return _farthest(PALETTE, lattice[(lightness > 10) & (lightness < 95)], classes)


def colorize(labels: np.ndarray, palette: np.ndarray = PALETTE) -> np.ndarray:
    """Labels (height, width), 0..classes - 1, as a picture: uint8 (height, width, 3). Ignored pixels are nearly black.

    Raises:
        IndexError: a label has no colour.
    """
    ignored = np.asarray(labels) == IGNORE
    return np.where(ignored[..., None], IGNORED, palette[np.where(ignored, 0, labels)])


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB (..., 3) of sRGB (..., 3) in 0..255, white point D65 (CIE 15, IEC 61966-2-1)."""
    rgb = np.asarray(rgb, float) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    xyz = linear @ to_xyz.T / to_xyz.sum(axis=1)
    root = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _farthest(chosen: np.ndarray, candidates: np.ndarray, count: int) -> np.ndarray:
    """`chosen` and further candidates up to `count`, each the one farthest in CIELAB from all before it."""
    colours, points = list(chosen), lab(candidates)
    nearest = np.min([np.linalg.norm(points - lab(colour), axis=1) for colour in chosen], axis=0)
    while len(colours) < count:
        best = int(nearest.argmax())
        colours.append(candidates[best])
        nearest = np.minimum(nearest, np.linalg.norm(points - points[best], axis=1))
    return np.stack(colours)
