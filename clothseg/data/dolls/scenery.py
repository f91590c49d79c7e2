"""What stands behind: street, wall, park, promenade, studio, and who else is out there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from clothseg.data.dolls.fabric import colour


@dataclass(frozen=True)
class Scene:
    """A scene to paint on.

    Attributes:
        height, width: in pixels.
        horizon: where the ground begins, in pixels from the top.
        image: RGB.
        draw: draws on it.
        rng: decides on everything.
    """

    height: int
    width: int
    horizon: int
    image: Image.Image
    draw: ImageDraw.ImageDraw
    rng: np.random.Generator

    def box(self, left: float, top: float, right: float, bottom: float, fill) -> None:
        """A rectangle in fractions of the width and the height."""
        corners = [left * self.width, top * self.height, right * self.width, bottom * self.height]
        self.draw.rectangle([min(corners[0], corners[2]), min(corners[1], corners[3]),
                             max(corners[0], corners[2]), max(corners[1], corners[3])], fill=_rgb(fill))  # fmt: skip

    def blob(self, x: float, y: float, radius: float, fill, *, squash: float = 1.0) -> None:
        """An ellipse in fractions; the radius in fractions of the height."""
        rx, ry = radius * self.height, radius * squash * self.height
        x, y = x * self.width, y * self.height
        self.draw.ellipse([x - rx, y - ry, x + rx, y + ry], fill=_rgb(fill))


def paint_scene(size: tuple[int, int], rng: np.random.Generator, *, ground: tuple[float, float], unit: float,
                light: tuple[float, float]) -> np.ndarray:  # fmt: skip
    """A scene with the shadow of a figure that stands in it, float32 (h, w, 3) in 0..255.

    Args:
        size: height and width in pixels.
        ground: x and y of where the figure stands, in pixels.
        unit: height of the figure in pixels.
        light: direction that the light comes from.
    """
    height, width = size
    level = rng.uniform(0.45, 0.8)
    horizon = int(height * level)
    image = Image.new("RGB", (width, height))
    scene = Scene(height, width, horizon, image, ImageDraw.Draw(image), rng)
    SCENES[rng.choice(len(SCENES), p=_WEIGHTS)](scene)
    _passers_by(scene)
    blurred = image.filter(ImageFilter.GaussianBlur(height * rng.uniform(0.004, 0.02)))
    scene = Scene(height, width, horizon, blurred, ImageDraw.Draw(blurred), rng)
    _floor(scene)
    _shadow(scene, ground, unit, light)
    photo = np.asarray(blurred.filter(ImageFilter.GaussianBlur(0.004 * height)), np.float32)
    return photo * _texture(scene, 70, 0.035) * _texture(scene, 18, 0.04) * _texture(scene, 4, 0.2)


def _street(scene: Scene) -> None:
    rng = scene.rng
    scene.box(0, 0, 1, 1, colour(rng, str(rng.choice(["pastel", "white", "blue"]))) * 0.5 + 110)
    left, horizon = -0.05, scene.horizon / scene.height
    while left < 1:
        right, top = left + rng.uniform(0.25, 0.55), rng.uniform(-0.1, 0.2)
        wall = colour(rng, str(rng.choice(["beige", "brown", "grey", "camel", "wine", "white"])))
        scene.box(left, top, right, horizon, wall)
        glass, step = colour(rng, str(rng.choice(["navy", "black", "grey"]))), rng.uniform(0.08, 0.15)
        for x in np.arange(left + 0.4 * step, right - 0.5 * step, step):
            for y in np.arange(top + 0.05, horizon - 0.12, step * 1.15):
                scene.box(x, y, x + 0.5 * step, y + 0.65 * step, glass + rng.normal(0, 12))
        if rng.random() < 0.6:
            scene.box(left, horizon - 0.17, right, horizon, wall * 0.55)
            awning = colour(rng, "vivid")
            scene.box(left + 0.03, horizon - 0.2, right - 0.03, horizon - 0.15, awning)
        left = right
    for _ in range(rng.integers(0, 3)):
        _car(scene, rng.uniform(-0.1, 1.0), horizon)


def _car(scene: Scene, x: float, ground: float) -> None:
    paint, size = colour(scene.rng, str(scene.rng.choice(["black", "white", "grey", "red", "mustard"]))), 0.13
    scene.box(x, ground - 0.7 * size, x + 2.6 * size, ground, paint)
    scene.box(x + 0.5 * size, ground - 1.15 * size, x + 2 * size, ground - 0.7 * size, paint * 0.4 + 30)
    for wheel in (0.5, 2.1):
        scene.blob(x + wheel * size, ground, 0.25 * size, (25, 25, 28))


def _wall(scene: Scene) -> None:
    rng = scene.rng
    base = colour(rng, str(rng.choice(["brown", "beige", "grey", "white", "wine", "teal", "pastel"]))) * 0.8 + 25
    scene.box(0, 0, 1, 1, base)
    style = rng.choice(["brick", "shutter", "plaster", "panel"])
    if style == "brick":
        course = rng.uniform(0.03, 0.05)
        for row, y in enumerate(np.arange(0, 1, course)):
            for x in np.arange(-course * (row % 2) * 1.2, 1, course * 2.4):
                scene.box(x, y, x + 2.15 * course, y + 0.8 * course, base * rng.uniform(0.75, 1.2))
    elif style == "shutter":
        for y in np.arange(0, 1, rng.uniform(0.03, 0.06)):
            scene.box(0, y, 1, y + 0.012, base * 0.75)
    elif style == "panel":
        for x in np.arange(rng.uniform(-0.2, 0), 1, rng.uniform(0.2, 0.45)):
            scene.box(x, 0, x + 0.015, 1, base * 0.6)
    else:
        for _ in range(6):
            scene.blob(rng.random(), rng.random(), rng.uniform(0.08, 0.3), base * rng.uniform(0.85, 1.12))
    if rng.random() < 0.5:
        door, x = colour(rng, str(rng.choice(["navy", "green", "red", "black", "brown"]))), rng.uniform(-0.1, 0.8)
        scene.box(x, 0.18, x + rng.uniform(0.2, 0.35), 1, door)
    if rng.random() < 0.3:
        for _ in range(rng.integers(2, 6)):
            tag, x, y = colour(rng, "vivid"), rng.random(), rng.uniform(0.1, 0.6)
            scene.blob(x, y, rng.uniform(0.02, 0.1), tag, squash=rng.uniform(0.3, 1))


def _park(scene: Scene) -> None:
    rng = scene.rng
    scene.box(0, 0, 1, 1, colour(rng, "pastel") * 0.4 + 140)
    horizon = scene.horizon / scene.height
    for depth in (0.6, 0.8, 1.0):
        leaf = colour(rng, str(rng.choice(["green", "olive", "green", "mustard"])))
        for _ in range(14):
            spread = rng.uniform(0.04, 0.13)
            place = horizon - rng.uniform(0, 0.5) * (1.3 - depth) - 0.05
            scene.blob(rng.uniform(-0.1, 1.1), place, spread, leaf * depth * rng.uniform(0.7, 1.25))
    for _ in range(rng.integers(0, 4)):
        x = rng.random()
        scene.box(x, 0, x + rng.uniform(0.015, 0.05), horizon + 0.03, (74, 58, 46))


def _lights(scene: Scene) -> None:
    rng = scene.rng
    dusk = colour(rng, str(rng.choice(["navy", "black", "purple", "brown", "teal"])))
    scene.box(0, 0, 1, 1, dusk + 20)
    for _ in range(rng.integers(25, 50)):
        lamp = colour(rng, str(rng.choice(["mustard", "mustard", "red", "vivid", "pastel", "camel"])))
        weight = rng.uniform(0.25, 0.9)
        lamp = weight * lamp + (1 - weight) * dusk
        scene.blob(rng.random(), rng.uniform(0, 0.85), rng.uniform(0.012, 0.055), lamp)


def _promenade(scene: Scene) -> None:
    rng, horizon = scene.rng, scene.horizon / scene.height
    sky = colour(rng, "blue") * 0.35 + 150
    for k, y in enumerate(np.linspace(0, horizon, 8)):
        scene.box(0, y, 1, 1, sky + 6 * k)
    water = horizon - rng.uniform(0.08, 0.2)
    for _ in range(7):
        x = rng.uniform(-0.1, 1)
        scene.box(x, water - rng.uniform(0.02, 0.14), x + rng.uniform(0.05, 0.2), water, colour(rng, "grey") + 30)
    scene.box(0, water, 1, 1, colour(rng, str(rng.choice(["blue", "teal"]))) * 0.7 + 30)
    rail = colour(rng, str(rng.choice(["black", "white", "grey"])))
    for y in (horizon - 0.16, horizon - 0.08):
        scene.box(0, y, 1, y + 0.014, rail)
    for x in np.arange(rng.uniform(0, 0.1), 1, rng.uniform(0.06, 0.2)):
        scene.box(x, horizon - 0.17, x + 0.012, horizon, rail)


def _studio(scene: Scene) -> None:
    base = colour(scene.rng, str(scene.rng.choice(["white", "grey", "beige", "pastel"]))) * 0.9
    scene.box(0, 0, 1, 1, base)
    x, y = scene.rng.uniform(0.2, 0.8), scene.rng.uniform(0.2, 0.5)
    for radius in np.linspace(0.7, 0.1, 8):
        scene.blob(x, y, radius, base + 30 * (0.7 - radius))


_WEIGHTS = (0.28, 0.24, 0.18, 0.1, 0.12, 0.08)
SCENES: tuple[Callable[[Scene], None], ...] = (_street, _wall, _park, _lights, _promenade, _studio)


def _passers_by(scene: Scene) -> None:
    """People in the distance, who are background as in the real data."""
    rng, horizon = scene.rng, scene.horizon / scene.height
    for _ in range(rng.integers(0, 4)):
        x, tall = rng.random(), rng.uniform(0.16, 0.34)
        feet = horizon + 0.12 * tall
        wide = 0.2 * tall
        legs = colour(rng, str(rng.choice(["navy", "black", "grey"])))
        scene.box(x - 0.3 * wide, feet - 0.48 * tall, x + 0.35 * wide, feet, legs)
        top = colour(rng, str(rng.choice(["black", "grey", "beige", "vivid", "white"])))
        scene.box(x - 0.55 * wide, feet - 0.84 * tall, x + 0.55 * wide, feet - 0.4 * tall, top)
        scene.blob(x, feet - 0.91 * tall, 0.075 * tall, (196, 152, 124))


def _floor(scene: Scene) -> None:
    rng, horizon = scene.rng, scene.horizon / scene.height
    tone = colour(rng, str(rng.choice(["grey", "grey", "beige", "white", "brown", "olive"]))) * 0.75 + 50
    for k, y in enumerate(np.linspace(horizon, 1, 8)):
        scene.box(0, y, 1, 1, tone * (0.86 + 0.03 * k))
    pattern = rng.choice(["plain", "tiles", "planks", "crossing", "kerb"], p=[0.3, 0.25, 0.1, 0.15, 0.2])
    centre, depth = rng.uniform(0.2, 0.8), 1 - horizon
    line = tone * rng.uniform(0.75, 0.9)
    rows = horizon + depth * np.linspace(0, 1, 7)[1:] ** 1.8
    if pattern in ("tiles", "planks"):
        for y in rows:
            scene.box(0, y, 1, y + 0.004 + 0.006 * (y - horizon), line)
    if pattern == "tiles":
        for x in np.linspace(-1.5, 2.5, 13):
            scene.draw.line(
                [(centre + 0.3 * (x - centre)) * scene.width, scene.horizon, x * scene.width, scene.height],
                fill=_rgb(line), width=max(1, scene.height // 160),
            )  # fmt: skip
    elif pattern == "crossing":
        for y, thick in zip(rows[1::2], (0.02, 0.035, 0.05), strict=True):
            scene.box(0, y, 1, y + thick, (222, 220, 214))
    elif pattern == "kerb":
        scene.box(0, horizon + 0.12 * depth, 1, horizon + 0.2 * depth, tone * 1.25)
        scene.box(0, horizon + 0.2 * depth, 1, horizon + 0.24 * depth, tone * 0.6)


def _shadow(scene: Scene, ground: tuple[float, float], unit: float, light: tuple[float, float]) -> None:
    mask = Image.new("L", scene.image.size)
    draw = ImageDraw.Draw(mask)
    x, y = ground
    length = -0.38 * light[0] * unit
    far = y - 0.1 * unit
    draw.polygon(
        [x - 0.1 * unit, y, x + 0.1 * unit, y, x + length + 0.12 * unit, far, x + length - 0.04 * unit, far], fill=90
    )
    draw.ellipse([x - 0.17 * unit, y - 0.035 * unit, x + 0.17 * unit, y + 0.025 * unit], fill=150)
    mask = mask.filter(ImageFilter.GaussianBlur(0.018 * unit))
    scene.image.paste((18, 18, 26), mask=mask)


def _texture(scene: Scene, cells: int, strength: float) -> np.ndarray:
    """Smooth noise around 1, float32 (h, w, 1); the number of cells does not depend on the size."""
    noise = Image.fromarray(scene.rng.uniform(1 - strength, 1 + strength, (cells, cells)).astype(np.float32))
    return np.asarray(noise.resize((scene.width, scene.height), Image.Resampling.BICUBIC))[..., None]


def _rgb(values) -> tuple[int, int, int]:
    red, green, blue = (int(min(max(value, 0), 255)) for value in values)
    return red, green, blue
