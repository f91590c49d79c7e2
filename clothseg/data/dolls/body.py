"""A body in a pose: joints, limbs and the silhouette that garments follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Half width of the trunk at each level (0 is the base of the neck, 1 the crotch), before build and frame.
TRUNK_LEVELS = np.array([0.0, 0.05, 0.12, 0.2, 0.4, 0.64, 0.86, 1.0])
TRUNK_WIDTHS = np.array([0.04, 0.07, 0.103, 0.112, 0.1, 0.082, 0.1, 0.104])
ARM_RADII = np.array([0.033, 0.028, 0.021])
LEG_RADII = np.array([0.056, 0.04, 0.026])

# Degrees from hanging straight down, outwards positive: upper arm, forearm. A hand that is hidden is in a pocket.
ARM_POSES = {
    "hanging": (9, 3, 0.34),
    "away": (24, 12, 0.14),
    "hip": (42, -52, 0.14),
    "pocket": (21, -20, 0.14),
    "front": (11, -122, 0.09),
    "carrying": (13, -82, 0.08),
    "raised": (72, 165, 0.07),
}


@dataclass(frozen=True)
class Limb:
    """A chain of joints with a radius at each.

    Attributes:
        points: float (n, 2).
        radii: float (n,).
    """

    points: np.ndarray
    radii: np.ndarray

    def part(self, start: float, end: float) -> Limb:
        """The limb between two fractions of its length, 0..1; past 1 it is lengthened."""
        along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(self.points, axis=0), axis=1))])
        along /= along[-1]
        stations = np.array([start, *along[(along > start) & (along < end)], end])
        points = np.stack([np.interp(stations, along, self.points[:, k]) for k in range(2)], axis=1)
        if end > 1:
            points[-1] += (end - 1) * (self.points[-1] - self.points[-2])
        return Limb(points, np.interp(stations, along, self.radii))

    def grown(self, ease: float, flare: float = 0.0) -> Limb:
        """Wider by `ease` everywhere and by `flare` more at the end."""
        return Limb(self.points, self.radii + ease + flare * np.linspace(0, 1, len(self.radii)) ** 2)


@dataclass(frozen=True)
class Body:
    """Where everything is.

    Attributes:
        trunk: float (3, 2): base of the neck, waist, crotch.
        arms: left and right in the picture, shoulder to wrist.
        hands: float (2, 2), the middle of each.
        hidden_hands: whether each is in a pocket.
        arm_poses: a key of `ARM_POSES` for each.
        legs: left and right, hip to ankle.
        toes: float (2, 2).
        head: centre (2,), half width and half height of the skull.
        tilt: of the head, radians.
        turn: where the face looks, -1..1.
        build: factor on widths.
        frame: shoulders against hips, 0 (wide hips) to 1 (wide shoulders).
    """

    trunk: np.ndarray
    arms: tuple[Limb, Limb]
    hands: np.ndarray
    hidden_hands: tuple[bool, bool]
    arm_poses: tuple[str, str]
    legs: tuple[Limb, Limb]
    toes: np.ndarray
    head: np.ndarray
    head_radii: np.ndarray
    tilt: float
    turn: float
    build: float
    frame: float

    def edges(self, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Left and right edge of the silhouette without arms, each (n, 2).

        Args:
            levels: float (n,): 0 base of the neck, 1 crotch, 2 knees, 3 ankles.
        """
        upper = np.minimum(levels, 1.0)
        centre = np.stack([np.interp(upper, [0, 0.64, 1], self.trunk[:, k]) for k in range(2)], axis=1)
        down = self.trunk[2] - self.trunk[0]
        normal = np.array([down[1], -down[0]]) / np.hypot(*down)
        half = trunk_half_width(upper, self.build, self.frame)[:, None] * normal
        lower = np.clip(levels - 1.0, 0, 2)[:, None]
        sides = []
        for leg, side in zip(self.legs, (-1, 1), strict=True):
            hips = centre + side * half
            joints = np.stack([np.interp(lower[:, 0], [0, 1, 2], leg.points[:, k]) for k in range(2)], axis=1)
            outside = joints + np.array([side, 0.0]) * np.interp(lower, [0, 1, 2], leg.radii)
            # Over the first stretch below the crotch the hips pass into the thighs.
            blend = np.clip(lower / 0.25, 0, 1)
            sides.append((1 - blend) * (hips + joints - leg.points[0]) + blend * outside)
        # Crossed legs: the outer edge is whichever leg is further out.
        left, right = sides
        swapped = (left[:, 0] > right[:, 0])[:, None]
        return np.where(swapped, right, left), np.where(swapped, left, right)

    def outline(
        self, top: float, bottom: float, *, ease: float = 0.0, flare: float = 0.0, across=(-1.0, 1.0), wave: float = 0.0
    ) -> np.ndarray:
        """Outline of a garment around trunk and legs, float (n, 2).

        Args:
            top: level at which it begins (see `edges`).
            bottom: level of the hem.
            ease: distance from the body.
            flare: extra distance per level below the waist.
            across: from where to where it reaches, -1 left edge to 1 right edge; numbers or functions of the levels.
            wave: amplitude of a wavy hem.
        """
        levels = np.linspace(top, bottom, 14)
        left, right = self.edges(levels)
        middle, half = (left + right) / 2, (right - left) / 2
        width = np.linalg.norm(half, axis=1, keepdims=True)
        spread = (ease * np.clip(levels / 0.12, 0.3, 1) + flare * np.maximum(levels - 0.64, 0))[:, None]
        half = half * (1 + spread / width)
        start, end = (a(levels) if callable(a) else np.full(len(levels), a) for a in across)
        one, other = middle + half * start[:, None], middle + half * end[:, None]
        share = np.linspace(0, 1, 9)[1:-1, None]
        hem = one[-1] + share * (other[-1] - one[-1])
        sag = 0.05 * abs(other[-1, 0] - one[-1, 0])
        hem[:, 1] += sag * np.sin(np.pi * share[:, 0]) + wave * np.sin(6 * np.pi * share[:, 0])
        return np.concatenate([one, hem, other[::-1]])

    def at_head(self, points) -> np.ndarray:
        """Points in head units (1 to the side of the skull, 1 down to the chin) as figure points, float (n, 2)."""
        points = np.asarray(points, float).reshape(-1, 2) * self.head_radii
        cos, sin = np.cos(self.tilt), np.sin(self.tilt)
        return self.head + points @ np.array([[cos, sin], [-sin, cos]])


def trunk_half_width(levels: np.ndarray, build: float, frame: float) -> np.ndarray:
    """Half width of the trunk at levels 0..1."""
    shape = np.interp(levels, [0, 0.2, 0.64, 1], [1, 0.94 + 0.14 * frame, 0.93 + 0.2 * frame, 1.06 - 0.12 * frame])
    return np.interp(levels, TRUNK_LEVELS, TRUNK_WIDTHS) * shape * build


def pose(rng: np.random.Generator, *, build: float, frame: float) -> Body:
    """A body in a random pose that stands on the ground."""
    narrow = 1 - 0.13 * abs(turn := rng.uniform(-1, 1))
    build = build * narrow
    sway, lean = rng.normal(0, 0.05), rng.normal(0, 0.03)

    crotch = np.zeros(2)
    neck = crotch + 0.33 * _down(np.pi + lean)
    waist = neck + 0.64 * (crotch - neck) + np.array([0.12 * sway, 0])
    trunk = np.stack([neck, waist, crotch])

    stance = str(rng.choice(["straight", "apart", "relaxed", "walking", "crossed"], p=[0.32, 0.17, 0.25, 0.18, 0.08]))
    legs, toes = _legs(rng, stance, build, sway)
    ground = max(leg.points[2, 1] for leg in legs) + 0.042
    ankles = np.mean([leg.points[2, 0] for leg in legs])
    shift = np.array([-ankles, -ground])
    left_leg, right_leg = (Limb(leg.points + shift, leg.radii) for leg in legs)

    arms, hands, hidden, poses = [], [], [], []
    across = trunk_half_width(np.array([0.15]), build, frame)[0] - 0.024
    slope = -0.4 * sway + rng.normal(0, 0.02)
    names = list(ARM_POSES)
    for side in (-1, 1):
        kind = names[rng.choice(len(names), p=[weight for *_, weight in ARM_POSES.values()])]
        if kind == "raised" and "raised" in poses:
            kind = "hanging"
        upper, fore, _ = ARM_POSES[kind]
        upper, fore = np.radians([upper + rng.normal(0, 5), fore + rng.normal(0, 8)])
        shoulder = neck + 0.052 * _down(lean) + side * across * np.array([np.cos(slope), np.sin(slope)])
        elbow = shoulder + 0.165 * _down(side * upper)
        wrist = elbow + 0.14 * _down(side * fore)
        arms.append(Limb(np.stack([shoulder, elbow, wrist]) + shift, ARM_RADII * (0.5 + 0.5 * build)))
        hands.append(wrist + 0.03 * _down(side * fore) + shift)
        hidden.append(kind == "pocket")
        poses.append(kind)

    tilt = rng.normal(0, 0.08)
    radii = np.array([0.06, 0.077]) * rng.uniform(0.95, 1.07)
    head = neck + (0.022 + radii[1]) * _down(np.pi + lean + 0.5 * tilt)
    return Body(
        trunk=trunk + shift,
        arms=(arms[0], arms[1]),
        hands=np.stack(hands),
        hidden_hands=(hidden[0], hidden[1]),
        arm_poses=(poses[0], poses[1]),
        legs=(left_leg, right_leg),
        toes=toes + shift,
        head=head + shift,
        head_radii=radii,
        tilt=tilt,
        turn=turn,
        build=build,
        frame=frame,
    )


def _legs(rng: np.random.Generator, stance: str, build: float, sway: float) -> tuple[list[Limb], np.ndarray]:
    spread = {"straight": 3, "apart": 10, "relaxed": 5, "walking": 3, "crossed": -5}[stance]
    bent = rng.integers(2)
    legs, toes = [], []
    for k, side in enumerate((-1, 1)):
        thigh = spread + rng.normal(0, 1.5)
        shin, shorter = thigh + rng.normal(-1, 1.5), 1.0
        if k == bent and stance == "relaxed":
            thigh, shin = thigh + 9, thigh - 4
        if k == bent and stance == "walking":
            # The leg behind is seen foreshortened, its knee turned in.
            shin, shorter = thigh - 9, 0.86
        hip = np.array([side * 0.05 * build, -0.012 + side * 0.2 * sway * 0.1])
        knee = hip + 0.225 * _down(side * np.radians(thigh))
        ankle = knee + 0.205 * shorter * _down(side * np.radians(shin))
        legs.append(Limb(np.stack([hip, knee, ankle]), LEG_RADII * build))
        out = rng.uniform(0.012, 0.05)
        toes.append(ankle + np.array([side * out, 0.032]))
    return legs, np.stack(toes)


def _down(angle: float) -> np.ndarray:
    """Unit vector at `angle` radians from straight down, towards the right of the picture."""
    return np.array([np.sin(angle), np.cos(angle)])
