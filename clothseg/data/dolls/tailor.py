"""The tailor: paints a person, dressed, from the back to the front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from clothseg.data.dolls.body import Body, Limb
from clothseg.data.dolls.easel import CIRCLE, Easel, Frame, disc, ellipse, smooth
from clothseg.data.dolls.fabric import Fabric, plain
from clothseg.data.dolls.wardrobe import Extra, Garment, Outfit, Person

WAIST = 0.68
SIDES = (0, 1)
OUTWARDS = np.array([[-1.0, 0.0], [1.0, 0.0]])
DOWN = np.array([0.0, 1.0])


def paint_figure(easel: Easel, body: Body, person: Person, outfit: Outfit) -> None:
    """Paint one dressed person on the easel."""
    _Tailor(easel, body, person, outfit).paint()


class _Tailor:
    def __init__(self, easel: Easel, body: Body, person: Person, outfit: Outfit) -> None:
        self.easel, self.body, self.person, self.outfit = easel, body, person, _layered(outfit)
        down = body.trunk[2] - body.trunk[0]
        self.frame = Frame(body.trunk[0], down / np.hypot(*down), 0.125 * body.build)
        self.head_frame = Frame(body.head, DOWN, 1.1 * body.head_radii[0])
        # The leg whose foot is higher up in the picture stands behind.
        self.back_to_front = sorted(SIDES, key=lambda k: body.legs[k].points[2, 1])

    def paint(self) -> None:
        outfit = self.outfit
        self._hair_behind()
        self._hood()
        self._coat_lining()
        for side in self.back_to_front:
            self._leg(side)
        self._torso()
        if outfit.top and outfit.top.tucked:
            self._upper(outfit.top)
        self._lower()
        if outfit.top and not outfit.top.tucked:
            self._upper(outfit.top)
        if outfit.one_piece:
            self._one_piece(outfit.one_piece)
        self._belt()
        self._tie()
        self._necklace()
        self._outer()
        self._strap()
        for side in SIDES:
            self._arm(side)
        if outfit.outer and outfit.outer.label == "cape":
            self._cape(outfit.outer)
        self._head()
        self._hair_in_front()
        self._scarf()
        self._eyewear()
        self._hat()
        self._bag()
        self._carried()

    # Pieces that follow the trunk -------------------------------------------------------------------------------------

    def _trunk(self, label: str, fabric: Fabric, top: float, bottom: float, **cut) -> None:
        self.easel.paint(label, fabric, [self.body.outline(top, bottom, **cut)], self.frame)

    def _on_trunk(self, level: float, across: float) -> np.ndarray:
        """A place on the trunk: across is -1 at its left edge, 1 at its right."""
        left, right = self.body.edges(np.array([level]))
        return (left[0] + right[0]) / 2 + across * (right[0] - left[0]) / 2

    def _seam(self, label: str, fabric: Fabric, points: Sequence[np.ndarray], radius: float) -> None:
        self.easel.limb(label, fabric, Limb(np.stack(points), np.full(len(points), radius)))

    def _torso(self) -> None:
        skin, body = self.person.skin, self.body
        self._trunk("skin", skin, 0.0, 1.02)
        neck = np.stack([body.head + 0.3 * (body.trunk[0] - body.head), body.trunk[0] + 0.012 * DOWN])
        self.easel.limb("skin", skin.tinted(0.9), Limb(neck, np.array([0.028, 0.036]) * (0.75 + 0.25 * body.build)))

    def _upper(self, garment: Garment) -> None:
        bottom = WAIST + 0.05 if garment.tucked else garment.hem
        self._bodice(garment, bottom)
        if "hem" in garment.details:
            self._trunk(garment.label, garment.fabric.tinted(0.82), bottom - 0.07, bottom, ease=garment.ease * 0.8)
        self._front(garment, bottom)

    def _bodice(self, garment: Garment, bottom: float) -> None:
        strapped = not garment.sleeve and "straps" in garment.details
        top = 0.23 if strapped else 0.03
        wave = 0.006 if "wave" in garment.details else 0.0
        self._trunk(garment.label, garment.fabric, top, bottom, ease=garment.ease, flare=garment.flare, wave=wave)
        if strapped:
            for across in (-0.55, 0.55):
                ends = [self._on_trunk(0.05, across * 0.95), self._on_trunk(0.26, across)]
                self._seam(garment.label, garment.fabric, ends, 0.007)
        elif "roll" in garment.details:
            ends = [self._on_trunk(-0.02, across) for across in (-0.7, 0.7)]
            self._seam(garment.label, garment.fabric.tinted(0.9), ends, 0.016)
        else:
            self._neckline(garment)

    def _neckline(self, garment: Garment) -> None:
        """Skin down to the neckline: a V where it is deep, round where it is not."""
        neck, depth = self.body.trunk[0], self._on_trunk(garment.neck, 0.0)
        width = 0.034 * OUTWARDS[1]
        if garment.sleeve and garment.neck > 0.12:
            shape = np.stack([neck + width, depth, neck - width])
        else:
            angles = CIRCLE[: len(CIRCLE) // 2 + 1]
            shape = np.stack([neck + np.cos(a) * width + np.sin(a) * (depth - neck) for a in angles])
        self.easel.paint("skin", self.person.skin.tinted(0.95), [shape], self.frame)

    def _front(self, garment: Garment, bottom: float) -> None:
        """What is sewn on the front of an upper garment."""
        label, fabric, details = garment.label, garment.fabric, garment.details
        if "buttons" in details:
            for level in np.arange(0.16, bottom - 0.05, 0.13):
                self.easel.paint(label, plain((238, 236, 228)), [disc(self._on_trunk(level, 0), 0.0045)], self.frame)
        if "collar" in details:
            self._collar(label, fabric.tinted(1.12), 0.036)
        if "print" in details:
            place = self._on_trunk(0.33, 0.0)
            self.easel.paint(label, plain(fabric.second), [ellipse(place, (0.04, 0.034))], self.frame)
            self.easel.paint(label, plain(fabric.base * 0.8), [ellipse(place, (0.022, 0.012))], self.frame)
        if "bow" in details:
            knot = self._on_trunk(0.09, 0)
            for side in OUTWARDS:
                wing = np.stack([knot, knot + 0.035 * side + [0, -0.014], knot + 0.03 * side + [0, 0.022]])
                self.easel.paint(label, fabric.tinted(0.88), [wing], self.frame)
        if "pocket" in details:
            corners = [self._on_trunk(a, b) for a, b in ((0.66, -0.35), (0.66, 0.35), (0.86, 0.55), (0.86, -0.55))]
            self.easel.paint(label, fabric.tinted(0.88), [np.stack(corners)], self.frame)

    def _collar(self, label: str, fabric: Fabric, size: float) -> None:
        neck = self.body.trunk[0]
        for side in OUTWARDS:
            corners = [neck + 0.9 * size * side + [0, -0.022], neck + 1.25 * size * side + [0, 0.012],
                       neck + 0.55 * size * side + [0, 0.034], neck + [0, 0.008]]  # fmt: skip
            self.easel.paint(label, fabric, [np.stack(corners)], self.frame)

    def _lower(self) -> None:
        garment = self.outfit.bottom
        if not garment:
            return
        if garment.label == "skirt":
            self._trunk(
                "skirt", garment.fabric, WAIST, garment.hem, ease=garment.ease, flare=garment.flare,
                wave=0.006 if "wave" in garment.details else 0.0,
            )  # fmt: skip
            self._trunk("skirt", garment.fabric.tinted(0.8), WAIST - 0.01, WAIST + 0.05, ease=0.006)
        else:
            self._trousers(garment)

    def _trousers(self, garment: Garment) -> None:
        label, fabric = garment.label, garment.fabric
        for side in self.back_to_front:
            leg = self.body.legs[side].part(0, (garment.hem - 1) / 2)
            self.easel.limb(label, fabric, leg.grown(garment.ease, garment.puff), round_end=False)
            if "cuffs" in garment.details:
                end = (garment.hem - 1) / 2
                cuff = self.body.legs[side].part(end - 0.06, end).grown(garment.ease + garment.puff + 0.003)
                self.easel.limb(label, fabric.tinted(1.3), cuff, round_start=False, round_end=False)
            if "crease" in garment.details:
                self._seam(label, fabric.tinted(0.82), list(leg.points[1:]), 0.002)
        self._trunk(label, fabric, WAIST, 1.03, ease=garment.ease * 0.6)
        self._trunk(label, fabric.tinted(0.85), WAIST - 0.01, WAIST + 0.035, ease=garment.ease * 0.6 + 0.002)
        if "pockets" in garment.details:
            for across in (-0.9, 0.9):
                ends = [self._on_trunk(0.76, across * 0.62), self._on_trunk(0.86, across)]
                self._seam(label, fabric.tinted(0.72), ends, 0.0025)

    def _one_piece(self, garment: Garment) -> None:
        if garment.label == "dress":
            self._bodice(garment, garment.hem)
        else:
            self._trousers(garment)
            self._bodice(garment, 0.98)
            if "waist" in garment.details:
                self._trunk(garment.label, garment.fabric.tinted(0.75), WAIST - 0.02, WAIST + 0.04, ease=garment.ease)

    def _coat_lining(self) -> None:
        coat = self.outfit.outer
        if coat and coat.label != "cape" and coat.hem > 1.1:
            self._trunk(
                coat.label, coat.fabric.tinted(0.6), 0.4, coat.hem - 0.04, ease=coat.ease * 0.8, flare=coat.flare
            )

    def _outer(self) -> None:
        garment = self.outfit.outer
        if not garment or garment.label == "cape":
            return
        depth, open_front = garment.neck, "open" in garment.details

        def gap(levels: np.ndarray) -> np.ndarray:
            if open_front:
                return np.interp(levels, [0, 0.3, 1, 3], [0.34, 0.4, 0.5, 0.62])
            return 0.4 * np.clip((depth - levels) / depth, 0, 1)

        label, fabric = garment.label, garment.fabric
        cut = {"ease": garment.ease, "flare": garment.flare}
        self._trunk(label, fabric, 0.02, garment.hem, across=(-1.0, lambda t: -gap(t)), **cut)
        self._trunk(label, fabric, 0.02, garment.hem, across=(lambda t: gap(t) - 0.02, 1.0), **cut)
        edge = np.array([0.03, depth + 0.12])
        if "lapels" in garment.details:
            for side in (-1, 1):
                inner = [self._on_trunk(t, side * float(gap(np.array([t]))[0])) for t in edge]
                corners = [inner[0], inner[1], self._on_trunk(0.24, side * 0.78), self._on_trunk(0.15, side * 0.58)]
                self.easel.paint(label, fabric.tinted(0.84), [np.stack(corners)], self.frame)
        if "collar" in garment.details:
            self._collar(label, fabric.tinted(0.85), 0.042)
        if "hem" in garment.details:
            top = garment.hem - 0.07
            self._trunk(label, fabric.tinted(0.8), top, garment.hem, across=(-1.0, lambda t: -gap(t)), **cut)
            self._trunk(label, fabric.tinted(0.8), top, garment.hem, across=(gap, 1.0), **cut)
        if open_front:
            return
        if "zip" in garment.details:
            ends = [self._on_trunk(depth, 0), self._on_trunk(garment.hem, 0)]
            self._seam(label, plain((190, 190, 195)), ends, 0.0025)
        if "buttons" in garment.details or "button" in garment.details:
            for level in np.arange(depth + 0.1, min(garment.hem, 1.2), 0.17):
                self.easel.paint(label, fabric.tinted(0.45), [disc(self._on_trunk(level, 0.1), 0.007)], self.frame)
        if "belt" in garment.details:
            self._trunk("belt", fabric.tinted(0.6), 0.63, 0.7, ease=garment.ease + 0.003)

    def _cape(self, garment: Garment) -> None:
        levels = np.linspace(0.03, garment.hem, 10)
        left, right = self.body.edges(np.minimum(levels, 0.2))
        drop = (levels - np.minimum(levels, 0.2))[:, None] * (self.body.trunk[2] - self.body.trunk[0])
        spread = np.interp(levels, [0, 0.2, garment.hem], [0.01, garment.ease, garment.ease + 0.9 * garment.flare])
        left, right = left + drop - spread[:, None] * OUTWARDS[1], right + drop + spread[:, None] * OUTWARDS[1]
        share = np.linspace(0, 1, 12)[1:-1, None]
        hem = left[-1] + share * (right[-1] - left[-1]) + np.sin(np.pi * share) * 0.03 * DOWN
        self.easel.paint("cape", garment.fabric, [np.concatenate([left, hem, right[::-1]])], self.frame)
        middle = [self._on_trunk(0.05, 0), (left[-1] + right[-1]) / 2 + 0.03 * DOWN]
        self._seam("cape", garment.fabric.tinted(0.6), middle, 0.002)
        self._collar("cape", garment.fabric.tinted(0.85), 0.042)

    def _hood(self) -> None:
        top = self.outfit.top
        if top and "hood" in top.details:
            shape = self.body.at_head([[1.35 * np.cos(a), 0.45 + 0.95 * np.sin(a)] for a in CIRCLE])
            self.easel.paint(top.label, top.fabric.tinted(0.85), [shape], self.head_frame)

    def _belt(self) -> None:
        if belt := self.outfit.belt:
            self._trunk("belt", belt.fabric, WAIST - 0.025, WAIST + 0.045, ease=0.012)
            buckle = ellipse(self._on_trunk(WAIST + 0.01, 0.05), (0.011, 0.011))
            self.easel.paint("belt", plain((214, 190, 120)), [buckle], self.frame)

    def _tie(self) -> None:
        if tie := self.outfit.tie:
            knot, end = self._on_trunk(0.05, 0), self._on_trunk(0.6, 0)
            side = OUTWARDS[1]
            blade = [
                knot - 0.008 * side,
                knot + 0.008 * side,
                end + 0.017 * side,
                end + 0.02 * DOWN,
                end - 0.017 * side,
            ]
            self.easel.paint("tie", tie.fabric, [np.stack(blade), disc(knot, 0.011)], self.frame)

    def _necklace(self) -> None:
        if necklace := self._trinket("necklace"):
            arc = [self._on_trunk(0.02 + 0.17 * np.sin(a), 0.42 * np.cos(a)) for a in np.linspace(0, np.pi, 6)]
            self._seam("necklace", necklace.fabric, arc, 0.005)

    def _scarf(self) -> None:
        if scarf := self.outfit.scarf:
            neck = self.body.trunk[0]
            ends = ((-0.012, 0.14), (0.02, 0.2))
            for x, length in ends:
                tail = Limb(np.stack([neck + [x, 0.0], neck + [1.6 * x, length]]), np.array([0.02, 0.026]))
                self.easel.limb("scarf", scarf.fabric.tinted(0.92), tail, round_end=False)
            loop = Limb(
                np.stack([neck + [-0.045, -0.012], neck + [0, 0.014], neck + [0.045, -0.012]]), np.full(3, 0.026)
            )
            self.easel.limb("scarf", scarf.fabric, loop)

    # Legs and feet ----------------------------------------------------------------------------------------------------

    def _leg(self, side: int) -> None:
        body, hosiery, shoes = self.body, self.outfit.hosiery, self.outfit.shoes
        leg, skin = body.legs[side], self.person.skin
        foot = Limb(np.stack([leg.points[2] + 0.012 * DOWN, body.toes[side]]), np.array([0.021, 0.017]) * body.build)
        self.easel.limb("skin", skin, leg)
        self.easel.limb("skin", skin, foot)
        if hosiery:
            start = {"socks": 0.8, "stockings": 0.28}.get(hosiery.label, 0.0)
            self.easel.limb(hosiery.label, hosiery.fabric, leg.part(start, 1).grown(0.001))
            if hosiery.label != "leggings":
                self.easel.limb(hosiery.label, hosiery.fabric, foot)
        if shoes:
            self._shoe(shoes, leg, foot)

    def _shoe(self, shoes: Extra, leg: Limb, foot: Limb) -> None:
        label, fabric, easel = shoes.label, shoes.fabric, self.easel
        ankle, toe = foot.points
        outwards = np.sign(toe[0] - ankle[0]) * OUTWARDS[1]
        sole = np.stack([ankle + [0, 0.03] - 0.016 * outwards, toe + [0, 0.017] + 0.014 * outwards])
        if shoes.style == "sandal":
            for share in (0.15, 0.75):
                middle = ankle + share * (toe - ankle)
                self._seam(label, fabric, [middle - 0.02 * OUTWARDS[1], middle + 0.02 * OUTWARDS[1]], 0.006)
            self._seam(label, fabric.tinted(0.8), list(sole), 0.005)
            return
        if shoes.style in ("tall", "ankle"):
            start = 0.62 if shoes.style == "tall" else 0.86
            easel.limb(label, fabric, leg.part(start, 1).grown(0.008))
        if shoes.style in ("heel", "wedge"):
            back = ankle - 0.012 * outwards
            self._seam(
                label, fabric.tinted(0.7), [back, back + 0.032 * DOWN], 0.006 if shoes.style == "heel" else 0.012
            )
        if shoes.style in ("lace", "sneaker"):
            easel.limb(label, fabric, leg.part(0.95, 1).grown(0.004))
        # A low shoe leaves the instep bare.
        shoe = foot.part(0.3 if shoes.style in ("low", "heel") else 0.0, 1.0)
        easel.limb(label, fabric, shoe.grown(0.004))
        if shoes.style == "sneaker":
            self._seam(label, plain((240, 240, 236)), list(sole), 0.006)
            self._seam(label, plain((245, 245, 245)), [ankle + 0.3 * (toe - ankle), ankle + 0.6 * (toe - ankle)], 0.005)
        elif shoes.style == "wedge":
            self._seam(label, plain((178, 140, 92)), list(sole), 0.01)
        elif shoes.style == "lace":
            self._seam(label, fabric.tinted(0.5), list(sole), 0.004)

    # Arms -------------------------------------------------------------------------------------------------------------

    def _arm(self, side: int) -> None:
        body, skin, outfit = self.body, self.person.skin, self.outfit
        arm, hand = body.arms[side], body.hands[side]
        fingers = hand + 0.35 * (hand - arm.points[2])
        self.easel.limb("skin", skin, arm)
        if not body.hidden_hands[side]:
            self._seam("skin", skin, [arm.points[2], hand, fingers], 0.0175)
            if gloves := self._trinket("gloves"):
                self.easel.limb("gloves", gloves.fabric, arm.part(0.88, 1).grown(0.004))
                self._seam("gloves", gloves.fabric, [hand, fingers], 0.0185)
            if side == 0 and (ring := self._trinket("ring")):
                self.easel.paint("ring", ring.fabric, [disc(fingers, 0.006)], self.frame)
        for garment in (outfit.one_piece, outfit.top):
            if garment and garment.sleeve:
                self._sleeve(garment, arm)
        if side == 0 and (bracelet := self._trinket("bracelet")):
            self.easel.limb(
                "bracelet", bracelet.fabric, arm.part(0.93, 0.97).grown(0.006), round_start=False, round_end=False
            )
        if side == 1 and (watch := self._trinket("watch")):
            self.easel.limb(
                "watch", watch.fabric, arm.part(0.92, 0.97).grown(0.005), round_start=False, round_end=False
            )
        if outfit.outer and outfit.outer.sleeve:
            self._sleeve(outfit.outer, arm)

    def _sleeve(self, garment: Garment, arm: Limb) -> None:
        sleeve = arm.part(0, garment.sleeve).grown(garment.ease * 0.7, garment.puff)
        self.easel.limb(garment.label, garment.fabric, sleeve, round_end=garment.puff > 0.01)
        if "hem" in garment.details and garment.sleeve > 0.8:
            cuff = arm.part(garment.sleeve - 0.07, garment.sleeve).grown(garment.ease * 0.7)
            self.easel.limb(garment.label, garment.fabric.tinted(0.8), cuff, round_start=False, round_end=False)

    # Head -------------------------------------------------------------------------------------------------------------

    def _head_piece(self, label: str, fabric: Fabric, *shapes) -> None:
        self.easel.paint(label, fabric, [self.body.at_head(shape) for shape in shapes], self.head_frame)

    def _head(self) -> None:
        skin, turn = self.person.skin, 0.25 * self.body.turn
        for side in (-1, 1):
            self._head_piece("skin", skin.tinted(0.88), _oval(side * 1.0, 0.1, 0.14, 0.2))
            if earrings := self._trinket("earrings"):
                self._head_piece("earrings", earrings.fabric, _oval(side * 1.02, 0.42, 0.12, 0.16))
        face = [[np.cos(a) * (1 - 0.16 * max(np.sin(a), 0) ** 2), np.sin(a)] for a in CIRCLE]
        self._head_piece("skin", skin, face)
        brows = self.person.hair.tinted(0.8)
        for x in (-0.38, 0.38):
            self._head_piece("skin", plain((248, 246, 242)), _oval(x + turn, 0.06, 0.155, 0.085))
            self._head_piece("skin", plain((40, 30, 26)), _oval(x + 1.15 * turn, 0.06, 0.08, 0.088))
            self._head_piece("skin", brows, _oval(x + turn, -0.13, 0.19, 0.035))
        self._head_piece("skin", skin.tinted(0.84), _oval(1.25 * turn, 0.34, 0.11, 0.06))
        mouth = [[-0.24, 0.53], [0, 0.58], [0.24, 0.53], [0.15, 0.66], [0, 0.7], [-0.15, 0.66]]
        self._head_piece("skin", self.person.lips, smooth(mouth) + [turn, 0.0])

    def _hair_behind(self) -> None:
        hair, style = self.person.hair.tinted(0.8), self.person.hairstyle
        if style in ("long", "bob"):
            length = 2.5 if style == "long" else 1.15
            fall = [[-1.12, -0.1], [-1.28, 0.6], [-1.2, length], [1.2, length], [1.28, 0.6], [1.12, -0.1]]
            self._head_piece("hair", hair, _oval(0, -0.08, 1.15, 1.12), smooth(fall))
        elif style == "curly":
            around = [_oval(1.05 * np.cos(a), -0.2 + 0.95 * np.sin(a), 0.45, 0.4) for a in np.linspace(2.8, 6.6, 9)]
            self._head_piece("hair", hair, *around)
        elif style == "bun":
            self._head_piece("hair", hair, _oval(0.1 * self.body.turn, -1.3, 0.46, 0.38))
        elif style == "ponytail":
            side = 1 if self.body.turn < 0 else -1
            tail = [[0, -0.9], [side * 1.1, -0.75], [side * 1.55, 0.2], [side * 1.35, 1.3], [side * 1.15, 0.4], [0, 0]]
            self._head_piece("hair", hair, smooth(tail))

    def _hair_in_front(self) -> None:
        hair, style = self.person.hair, self.person.hairstyle
        if style == "bald":
            return
        part = 0.5 * np.sign(self.body.turn)
        crown = [[1.1 * np.cos(a), -0.02 + 1.12 * np.sin(a)] for a in np.linspace(np.pi, 2 * np.pi, 14)]
        low = {"short": -0.1, "buzz": -0.3, "bun": -0.2, "ponytail": -0.2, "curly": -0.1}.get(style, 0.25)
        brow = -0.72 if style == "buzz" else -0.5
        line = [[0.98, low], [0.8, -0.35], [part, brow - 0.12], [-part * 0.4, brow], [-0.8, -0.35], [-0.98, low]]
        line[2:4] = sorted(line[2:4], reverse=True)
        self._head_piece("hair", hair, [*crown, *line])
        if style == "curly":
            curls = [_oval(0.8 * np.cos(a), -0.25 + 0.75 * np.sin(a), 0.3, 0.26) for a in np.linspace(3.4, 6.0, 6)]
            self._head_piece("hair", hair, *curls)
        if style in ("long", "bob"):
            length = 2.1 if style == "long" else 0.95
            for side in (-1, 1):
                strand = [[side * 0.9, -0.5], [side * 1.14, -0.1], [side * 1.26, 0.7], [side * 1.15, length],
                          [side * 0.72, length * 0.93], [side * 0.92, 0.6], [side * 0.84, -0.1]]  # fmt: skip
                self._head_piece("hair", hair, smooth(strand))
        if accessory := self._trinket("accessories"):
            band = [[1.06 * np.cos(a), -0.28 + 0.78 * np.sin(a)] for a in np.linspace(np.pi, 2 * np.pi, 10)]
            inner = [[x * 0.97, y + 0.2] for x, y in band[::-1]]
            self._head_piece("accessories", accessory.fabric, [*band, *inner])

    def _eyewear(self) -> None:
        if not (eyewear := self.outfit.eyewear):
            return
        turn, label = 0.25 * self.body.turn, eyewear.label
        bridge = [[-0.95, -0.02], [0.95, -0.02], [0.95, 0.06], [-0.95, 0.06]]
        self._head_piece(label, eyewear.fabric, bridge)
        for x in (-0.42, 0.42):
            self._head_piece(label, eyewear.fabric, _oval(x + turn, 0.06, 0.37, 0.27))
            if label == "glasses":
                self._head_piece("skin", self.person.skin.tinted(1.05), _oval(x + turn, 0.06, 0.28, 0.19))
                self._head_piece("skin", plain((40, 30, 26)), _oval(x + turn, 0.06, 0.09, 0.09))
            else:
                self._head_piece(label, eyewear.fabric.tinted(1.7), _oval(x + turn - 0.08, 0.0, 0.16, 0.09))

    def _hat(self) -> None:
        if not (hat := self.outfit.hat):
            return
        fabric = hat.fabric
        dome = [[1.16 * np.cos(a), -0.38 + 0.95 * np.sin(a)] for a in np.linspace(np.pi, 2 * np.pi, 14)]
        if hat.style == "beanie":
            self._head_piece("hat", fabric, dome)
            self._head_piece("hat", fabric.tinted(0.8), [[-1.18, -0.62], [1.18, -0.62], [1.16, -0.3], [-1.16, -0.3]])
            self._head_piece("hat", fabric.tinted(1.1), _oval(0, -1.4, 0.24, 0.2))
        elif hat.style == "brim":
            crown = [[-0.98, -0.45], [-0.86, -1.3], [-0.3, -1.45], [0.3, -1.4], [0.86, -1.3], [0.98, -0.45]]
            self._head_piece("hat", fabric, _oval(0, -0.45, 1.95, 0.26))
            self._head_piece("hat", fabric, crown)
            self._head_piece("hat", fabric.tinted(0.5), [[-0.98, -0.5], [-0.95, -0.72], [0.95, -0.72], [0.98, -0.5]])
        else:
            side = 1 if self.body.turn > 0 else -1
            self._head_piece("hat", fabric, dome)
            visor = [
                [side * 0.2, -0.5],
                [side * 1.1, -0.46],
                [side * 1.9, -0.28],
                [side * 0.3, -0.22],
                [-side * 0.4, -0.4],
            ]
            self._head_piece("hat", fabric.tinted(0.8), visor)

    # Bags -------------------------------------------------------------------------------------------------------------

    def _bag_side(self) -> int:
        """The side whose hand is free to carry."""
        return min(SIDES, key=lambda k: self.body.arm_poses[k] in ("raised", "front", "pocket", "hip"))

    def _strap(self) -> None:
        bag = self.outfit.bag
        if bag and bag.style in ("shoulder", "cross"):
            side = 1 - 2 * self._bag_side()
            shoulder = self._on_trunk(0.07, -0.6 * side if bag.style == "shoulder" else 0.6 * side)
            self._seam("bag", bag.fabric.tinted(0.8), [shoulder, self._hip(self._bag_side())], 0.006)

    def _hip(self, side: int) -> np.ndarray:
        ease = self.outfit.outer.ease if self.outfit.outer else 0.0
        return self._on_trunk(0.86, 0.98 * (2 * side - 1)) + (0.02 + ease) * OUTWARDS[side]

    def _bag(self) -> None:
        if not (bag := self.outfit.bag):
            return
        side = self._bag_side()
        if bag.style in ("shoulder", "cross"):
            handle, size, drop = self._hip(side), np.array([0.058, 0.06]), 0.0
        else:
            size = np.array([0.075, 0.066]) if bag.style == "hand" else np.array([0.066, 0.1])
            folded = self.body.arm_poses[side] in ("carrying", "front", "raised", "hip")
            handle = self.body.arms[side].points[1] if folded else self.body.hands[side]
            drop = 0.05
            top = handle + drop * DOWN
            arc = [top + [0.045 * np.cos(a), -drop * np.sin(a)] for a in np.linspace(0, np.pi, 7)]
            self._seam("bag", bag.fabric.tinted(0.75), arc, 0.0055)
        middle = handle + (drop + size[1] * 0.9) * DOWN
        frame = Frame(middle, DOWN, size[0])
        body = np.array(
            [[-0.82, -1], [0.82, -1], [0.96, -0.8], [1, 0.8], [0.85, 1], [-0.85, 1], [-1, 0.8], [-0.96, -0.8]]
        )
        self.easel.paint("bag", bag.fabric, [middle + smooth(body) * size], frame)
        if bag.style != "tote":
            flap = np.array([[-0.84, -1], [0.84, -1], [0.95, -0.1], [0, 0.3], [-0.95, -0.1]])
            self.easel.paint("bag", bag.fabric.tinted(0.86), [middle + flap * size], frame)
            self.easel.paint("bag", plain((222, 198, 128)), [disc(middle + [0, 0.2 * size[1]], 0.008)], frame)
        else:
            self.easel.paint("bag", plain(bag.fabric.second), [ellipse(middle, tuple(size * 0.45))], frame)

    def _carried(self) -> None:
        if not (carried := self.outfit.carried):
            return
        side = 1 - self._bag_side() if self.outfit.bag else self._bag_side()
        if self.body.hidden_hands[side]:
            return
        size = np.array([0.058, 0.034]) if carried.label == "purse" else np.array([0.03, 0.02])
        middle = self.body.hands[side] + 0.018 * DOWN
        corners = np.array([[-1, -0.9], [1, -1.0], [1.02, 0.95], [-0.98, 1]])
        frame = Frame(middle, DOWN, size[0])
        self.easel.paint(carried.label, carried.fabric, [middle + corners * size], frame)
        flap = np.array([[-1, -0.9], [1, -1.0], [0, 0.25]])
        self.easel.paint(carried.label, carried.fabric.tinted(0.82), [middle + flap * size], frame)
        fingers = [self.body.hands[side] + [x, 0.0] for x in (-0.012, 0.014)]
        self._seam("skin", self.person.skin, fingers, 0.011)

    def _trinket(self, label: str) -> Extra | None:
        return next((trinket for trinket in self.outfit.trinkets if trinket.label == label), None)


def _layered(outfit: Outfit) -> Outfit:
    """The outfit with what is worn below a coat or jacket close enough to fit in."""
    outer = outfit.outer
    if not outer or outer.label == "cape":
        return outfit

    def below(garment: Garment | None) -> Garment | None:
        return garment and replace(
            garment, ease=min(garment.ease, 0.5 * outer.ease), puff=min(garment.puff, outer.puff)
        )

    return replace(outfit, top=below(outfit.top), one_piece=below(outfit.one_piece))


def _oval(x: float, y: float, half_width: float, half_height: float) -> np.ndarray:
    return ellipse(np.array([x, y]), (half_width, half_height))
