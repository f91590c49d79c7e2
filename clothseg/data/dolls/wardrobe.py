"""The wardrobe: what there is to wear, how often, and what goes with what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clothseg.data.dolls.fabric import Fabric, fabric, plain

BRIGHT = "red pink mustard green blue teal purple vivid pastel wine"
NEUTRAL = "black black white grey navy beige brown"
LIGHT = "white white pastel beige pink"
DARK = "black black navy grey brown wine olive"


@dataclass(frozen=True)
class Kind:
    """A kind of garment: its label, how common it is, and the range of its cuts.

    Attributes:
        label: one of `CLASS_NAMES`.
        weight: how often it is chosen against the others of its table.
        hem: where it ends, from and to, in levels of the body (1 crotch, 2 knees, 3 ankles).
        sleeve: fraction of the arm that is covered; 0 is sleeveless.
        ease: distance from the body in figure heights.
        flare: how much it widens below the waist, per level.
        puff: how much the sleeve widens towards its end.
        neck: depth of the neckline in levels.
        details: what is sewn on, see `clothseg.data.dolls.tailor`.
        tucked: how often a top is worn inside the bottom.
        palettes, patterns, folds, gloss: see `clothseg.data.dolls.fabric.fabric`.
    """

    label: str
    weight: float
    hem: tuple[float, float]
    sleeve: tuple[float, float] = (0.0, 0.0)
    ease: tuple[float, float] = (0.006, 0.012)
    flare: tuple[float, float] = (0.0, 0.01)
    puff: tuple[float, float] = (0.0, 0.0)
    neck: tuple[float, float] = (0.06, 0.1)
    details: str = ""
    tucked: float = 0.0
    palettes: str = f"{NEUTRAL} {BRIGHT}"
    patterns: str = "plain"
    folds: float = 0.05
    gloss: float = 1.0


@dataclass(frozen=True)
class Garment:
    """One garment as it is worn: a `Kind` with its cut decided."""

    label: str
    fabric: Fabric
    hem: float
    sleeve: float
    ease: float
    flare: float
    puff: float
    neck: float
    details: frozenset[str]
    tucked: bool = False


@dataclass(frozen=True)
class Extra:
    """Something small, with the style that it is drawn in."""

    label: str
    style: str
    fabric: Fabric


@dataclass(frozen=True)
class Outfit:
    """All that a person wears and carries; None is nothing."""

    top: Garment | None = None
    bottom: Garment | None = None
    one_piece: Garment | None = None
    outer: Garment | None = None
    hosiery: Extra | None = None
    shoes: Extra | None = None
    belt: Extra | None = None
    hat: Extra | None = None
    eyewear: Extra | None = None
    scarf: Extra | None = None
    tie: Extra | None = None
    bag: Extra | None = None
    carried: Extra | None = None
    trinkets: tuple[Extra, ...] = field(default=())


@dataclass(frozen=True)
class Person:
    """Looks that no wardrobe changes."""

    skin: Fabric
    hair: Fabric
    hairstyle: str
    lips: Fabric
    masculine: bool


TOPS = (
    Kind("blouse", 2.4, (0.86, 1.05), (0.6, 1.0), (0.014, 0.024), (0.02, 0.06), (0.004, 0.018), (0.1, 0.24), "bow",
         0.5, f"{LIGHT} {BRIGHT}", "plain floral dots dots gradient", 0.08),
    Kind("shirt", 2.2, (0.95, 1.12), (0.6, 1.0), (0.01, 0.018), (0.0, 0.02), (0.0, 0.006), (0.05, 0.14),
         "collar buttons", 0.45, "white white blue pastel denim red green navy",
         "plain plain tartan pinstripes checks"),
    Kind("t-shirt", 1.5, (0.88, 1.04), (0.26, 0.4), (0.008, 0.016), (0.0, 0.015), (0.006, 0.012), (0.07, 0.11), "print",
         0.35, f"white black grey {BRIGHT}", "plain plain stripes stripes"),
    Kind("sweater", 1.7, (0.88, 1.06), (0.92, 1.0), (0.018, 0.028), (0.0, 0.02), (0.0, 0.0), (0.03, 0.07), "hem roll",
         0.15, f"beige camel grey {BRIGHT}", "knit knit argyle stripes melange"),
    Kind("top", 1.2, (0.6, 0.95), (0.0, 0.0), (0.005, 0.012), (0.0, 0.04), (0.0, 0.0), (0.12, 0.24), "straps", 0.5,
         f"black white {BRIGHT}", "plain stripes floral dots", 0.06),
    Kind("sweatshirt", 0.8, (0.88, 1.0), (0.92, 1.0), (0.02, 0.028), (-0.01, 0.0), (0.0, 0.0), (0.03, 0.06),
         "hem print", 0.0, f"grey grey navy {BRIGHT}", "melange plain"),
    Kind("hoodie", 0.25, (0.92, 1.04), (0.95, 1.0), (0.022, 0.03), (-0.01, 0.0), (0.0, 0.0), (0.04, 0.06),
         "hem hood pocket", 0.0, f"grey black navy {BRIGHT}", "melange plain"),
    Kind("bodysuit", 0.15, (1.0, 1.0), (0.0, 0.95), (0.002, 0.004), (0.0, 0.0), (0.0, 0.0), (0.1, 0.2), "straps", 1.0,
         "black white wine", "plain ribs", 0.02),
    Kind("bra", 0.08, (0.4, 0.45), (0.0, 0.0), (0.004, 0.006), (0.0, 0.0), (0.0, 0.0), (0.2, 0.24), "straps", 0.0,
         "black white red", "plain", 0.02),
)  # fmt: skip

BOTTOMS = (
    Kind("pants", 3.6, (2.7, 3.0), ease=(0.004, 0.02), puff=(0.0, 0.03), details="crease",
         palettes=f"{NEUTRAL} {NEUTRAL} {BRIGHT} camel olive", patterns="plain plain plain pinstripes checks floral"),
    Kind("jeans", 2.3, (2.75, 3.0), ease=(0.002, 0.012), puff=(0.0, 0.016), details="cuffs pockets",
         palettes="denim denim denim navy black grey", patterns="denim"),
    Kind("skirt", 3.0, (1.45, 2.5), ease=(0.006, 0.014), flare=(0.0, 0.11), details="wave",
         palettes=f"black {BRIGHT} beige", patterns="plain plain checks tartan floral dots stripes", folds=0.13),
    Kind("shorts", 1.0, (1.35, 1.65), ease=(0.008, 0.02), palettes="denim beige black white olive pastel red",
         patterns="plain denim checks floral"),
    Kind("leggings", 0.6, (2.8, 2.95), ease=(0.0, 0.002), palettes="black black grey wine navy purple",
         patterns="plain plain leopard floral", gloss=1.5, folds=0.02),
)  # fmt: skip

ONE_PIECES = (
    Kind("dress", 2.7, (1.5, 2.7), (0.0, 0.9), (0.006, 0.014), (0.015, 0.09), (0.0, 0.01), (0.09, 0.24), "straps wave",
         0.0, f"black white {BRIGHT} {BRIGHT}", "plain plain floral dots stripes gradient tartan leopard", 0.11),
    Kind("romper", 0.25, (1.35, 1.55), (0.0, 0.5), (0.01, 0.018), (0.0, 0.02), (0.0, 0.0), (0.1, 0.2), "straps waist",
         0.0, f"navy {BRIGHT}", "plain floral dots", 0.08),
    Kind("jumper", 0.25, (2.6, 3.0), (0.0, 0.8), (0.008, 0.016), (0.0, 0.02), (0.0, 0.02), (0.12, 0.26), "straps waist",
         0.0, "black navy olive denim red", "plain denim pinstripes", 0.06),
)  # fmt: skip

SUIT_JACKET = Kind(
    "suit", 1.0, (1.0, 1.18), (0.95, 1.0), (0.014, 0.018), (0.0, 0.01), (0.0, 0.0), (0.4, 0.55), "lapels buttons",
    palettes="navy navy grey grey black brown blue", patterns="plain pinstripes checks",
)  # fmt: skip
SUIT_PANTS = Kind("suit", 1.0, (2.85, 3.0), ease=(0.008, 0.014), puff=(0.0, 0.01), details="crease")

OUTERWEAR = (
    Kind("coat", 3.0, (1.5, 2.35), (0.92, 1.0), (0.024, 0.034), (0.005, 0.05), (0.002, 0.012), (0.2, 0.5),
         "lapels buttons open belt", 0.0, f"camel camel beige {DARK} {BRIGHT}",
         "plain plain herringbone checks leopard melange", 0.05),
    Kind("jacket", 1.8, (0.72, 0.98), (0.9, 1.0), (0.016, 0.024), (-0.02, 0.0), (0.0, 0.004), (0.1, 0.3),
         "collar zip open hem", 0.0, "black black brown denim denim olive red", "plain plain denim leopard", 0.04, 1.6),
    Kind("blazer", 1.4, (0.98, 1.15), (0.85, 1.0), (0.014, 0.02), (0.0, 0.015), (0.0, 0.0), (0.4, 0.6),
         "lapels button open", 0.0, f"{NEUTRAL} red pink blue mustard", "plain plain pinstripes checks herringbone"),
    Kind("cardigan", 0.6, (0.95, 1.5), (0.9, 1.0), (0.018, 0.026), (0.0, 0.02), (0.0, 0.006), (0.4, 0.6),
         "open hem", 0.0, f"beige grey camel {BRIGHT}", "knit ribs stripes"),
    Kind("vest", 0.9, (0.8, 1.15), (0.0, 0.0), (0.018, 0.028), (0.0, 0.01), (0.0, 0.0), (0.2, 0.5), "zip open",
         0.0, f"denim {DARK} beige white", "plain denim melange"),
    Kind("cape", 0.5, (0.9, 1.25), (0.0, 0.0), (0.035, 0.05), (0.1, 0.16), (0.0, 0.0), (0.05, 0.1), "wave", 0.0,
         f"camel red {DARK}", "plain tartan checks melange stripes", 0.09),
)  # fmt: skip

# label: weight, styles, palettes
SHOES = {
    "shoes": (5.2, "lace heel", "black black brown brown camel red white"),
    "boots": (1.5, "ankle tall tall", "black black brown camel"),
    "heels": (0.5, "heel", "black red beige pink"),
    "pumps": (0.45, "heel", "black beige wine blue"),
    "flats": (0.4, "low", "black beige red pink"),
    "loafers": (0.5, "low", "brown black wine"),
    "sandals": (1.0, "sandal", "brown black camel white"),
    "sneakers": (0.7, "sneaker", "white white black grey red blue"),
    "wedges": (0.12, "wedge", "camel brown black"),
}


def dress_up(rng: np.random.Generator) -> tuple[Person, Outfit]:
    """A person and an outfit that goes together."""
    masculine = rng.random() < 0.3
    person = _person(rng, masculine)
    kind = rng.random()
    garments: dict[str, Garment] = {}
    if kind < 0.055:
        garments = _suit(rng)
    elif kind < 0.44 and not masculine:
        garments["one_piece"] = _sew(rng, _choose(rng, ONE_PIECES))
    else:
        skip = ("blouse", "top", "bodysuit", "bra", "skirt", "leggings") if masculine else ()
        garments["top"] = _sew(rng, _choose(rng, TOPS, skip))
        garments["bottom"] = _sew(rng, _choose(rng, BOTTOMS, skip))
    if "outer" not in garments and rng.random() < 0.5:
        garments["outer"] = _sew(rng, _choose(rng, OUTERWEAR, ("cape", "cardigan") if masculine else ()))
    return person, Outfit(
        top=garments.get("top"),
        bottom=garments.get("bottom"),
        one_piece=garments.get("one_piece"),
        outer=garments.get("outer"),
        **_extras(rng, garments, masculine),
    )


def _suit(rng: np.random.Generator) -> dict[str, Garment]:
    cloth = fabric(rng, palettes=SUIT_JACKET.palettes, patterns=SUIT_JACKET.patterns, folds=0.03)
    shirt = next(kind for kind in TOPS if kind.label == "shirt")
    return {
        "top": _sew(rng, shirt, tucked=True),
        "bottom": _sew(rng, SUIT_PANTS, cloth=cloth),
        "outer": _sew(rng, SUIT_JACKET, cloth=cloth),
    }


def _extras(rng: np.random.Generator, garments: dict[str, Garment], masculine: bool) -> dict[str, Any]:
    extras: dict[str, Any] = {"shoes": _shoes(rng, masculine)}
    lower = garments.get("one_piece") or garments["bottom"]
    top = garments.get("top")
    if lower.hem < 2.4 and not masculine:
        hosiery = {"tights": 0.16, "stockings": 0.16, "leggings": 0.04, "socks": 0.12}
        extras["hosiery"] = _maybe(rng, hosiery, "", "black black black grey wine white")
    elif lower.hem < 2.4:
        extras["hosiery"] = _maybe(rng, {"socks": 0.5}, "", "white black grey red navy")
    if "one_piece" in garments or (top and top.tucked):
        extras["belt"] = _maybe(rng, {"belt": 0.5}, "", "black brown camel red white")
    extras["hat"] = _maybe(rng, {"hat": 0.13}, "beanie brim cap", f"{DARK} red camel mustard white")
    extras["eyewear"] = _maybe(rng, {"sunglasses": 0.3, "glasses": 0.05}, "", "black black brown")
    outer = garments.get("outer")
    extras["scarf"] = _maybe(rng, {"scarf": 0.16 if outer else 0.07}, "", BRIGHT + " grey", "plain tartan knit stripes")
    if top and top.label == "shirt" and masculine and not extras["scarf"]:
        extras["tie"] = _maybe(rng, {"tie": 0.7 if outer and outer.label == "suit" else 0.2}, "", "wine navy black red")
    extras["bag"] = _maybe(
        rng, {"bag": 0.46}, "tote hand hand shoulder shoulder cross", f"black brown camel wine {BRIGHT}", gloss=1.3
    )
    extras["carried"] = _maybe(
        rng, {"purse": 0.2 if not masculine else 0.04, "wallet": 0.03}, "", f"black brown red white {BRIGHT}", gloss=1.4
    )
    chances = {
        "necklace": 0.08, "bracelet": 0.12, "watch": 0.07, "gloves": 0.05, "ring": 0.02, "earrings": 0.02,
        "accessories": 0.14,
    }  # fmt: skip
    extras["trinkets"] = tuple(
        trinket
        for label, chance in chances.items()
        if (trinket := _maybe(rng, {label: chance}, "", "mustard grey black vivid" if label != "gloves" else DARK))
    )
    return extras


def _shoes(rng: np.random.Generator, masculine: bool) -> Extra:
    skip = ("heels", "pumps", "flats", "wedges") if masculine else ()
    labels = [label for label in SHOES if label not in skip]
    weights = np.array([SHOES[label][0] for label in labels])
    label = str(rng.choice(labels, p=weights / weights.sum()))
    _, styles, palettes = SHOES[label]
    style = str(rng.choice(styles.split()))
    if masculine and style in ("heel", "tall"):
        style = {"heel": "lace", "tall": "ankle"}[style]
    return Extra(label, style, fabric(rng, palettes=palettes, patterns="plain", folds=0, gloss=1.5))


def _person(rng: np.random.Generator, masculine: bool) -> Person:
    tones = np.array([[88, 56, 40], [130, 86, 62], [176, 124, 92], [214, 164, 130], [236, 194, 164], [246, 212, 190]])
    depth = rng.uniform(0, len(tones) - 1)
    tone = np.array([np.interp(depth, range(len(tones)), tones[:, k]) for k in range(3)]) + rng.normal(0, 4, 3)
    hairs = [(28, 22, 20), (28, 22, 20), (52, 36, 27), (88, 58, 38), (124, 84, 52), (196, 158, 96), (226, 198, 142),
             (150, 66, 34), (168, 162, 156), (205, 70, 90)]  # fmt: skip
    weights = np.array([4, 4, 4, 3, 2, 2, 1.5, 1, 0.7, 0.15])
    hair = np.array(hairs[rng.choice(len(hairs), p=weights / weights.sum())]) * rng.uniform(0.85, 1.15)
    styles = "short short short buzz curly bald" if masculine else "long long long bob bob bun ponytail curly short"
    strands = Fabric(
        hair.astype(np.float32), (np.clip(hair * 1.35 + 12, 0, 255)).astype(np.float32), "ribs",
        size=0.02, shift=rng.uniform(0, 9), folds=0.12, gloss=1.3,
    )  # fmt: skip
    lips = plain(tone * [0.86, 0.55, 0.58] if not masculine else tone * [0.85, 0.7, 0.7])
    return Person(plain(np.clip(tone, 30, 250)), strands, str(rng.choice(styles.split())), lips, masculine)


def _choose(rng: np.random.Generator, kinds: Sequence[Kind], without: Sequence[str] = ()) -> Kind:
    kinds = [kind for kind in kinds if kind.label not in without]
    weights = np.array([kind.weight for kind in kinds])
    return kinds[rng.choice(len(kinds), p=weights / weights.sum())]


def _sew(rng: np.random.Generator, kind: Kind, *, cloth: Fabric | None = None, tucked: bool | None = None) -> Garment:
    if cloth is None:
        cloth = fabric(rng, palettes=kind.palettes, patterns=kind.patterns, folds=kind.folds, gloss=kind.gloss)
    sleeve = rng.uniform(*kind.sleeve)
    if kind.label in ("dress", "romper", "jumper", "bodysuit"):
        # Half of these are sleeveless, whatever their sleeves are otherwise.
        sleeve *= rng.random() < 0.55
    details = frozenset(
        detail for detail in kind.details.split()
        if detail in ("collar", "lapels", "hem", "hood", "straps", "crease", "pocket", "waist") or rng.random() < 0.5
    )  # fmt: skip
    return Garment(
        label=kind.label,
        fabric=cloth,
        hem=rng.uniform(*kind.hem),
        sleeve=sleeve if sleeve > 0.15 else 0.0,
        ease=rng.uniform(*kind.ease),
        flare=rng.uniform(*kind.flare),
        puff=rng.uniform(*kind.puff),
        neck=rng.uniform(*kind.neck),
        details=details,
        tucked=bool(rng.random() < kind.tucked) if tucked is None else tucked,
    )


def _maybe(
    rng: np.random.Generator, chances: dict[str, float], styles: str, palettes: str, patterns: str = "plain",
    *, gloss: float = 1.0,
) -> Extra | None:  # fmt: skip
    """One of the labels, with the probability given for each, or None."""
    draw = rng.random()
    for label, chance in chances.items():
        if draw < chance:
            style = str(rng.choice(styles.split())) if styles else ""
            return Extra(label, style, fabric(rng, palettes=palettes, patterns=patterns, folds=0.03, gloss=gloss))
        draw -= chance
    return None
