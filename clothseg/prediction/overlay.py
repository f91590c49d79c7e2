"""A photo with its classes laid over it, and a legend beside it, drawn fast enough for thousands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from clothseg.data.labels import BACKGROUND

LONGEST = 1600  # pixels of a side: an overlay is to be looked at
OPACITY = 0.55  # of the classes over the photo


def overlay(photo: np.ndarray, labels: np.ndarray, *, class_names: Sequence[str], colours: np.ndarray) -> Image.Image:
    """The photo with its clothes tinted, and which colour is what, the largest first.

    Args:
        photo: uint8 (height, width, 3).
        labels: uint8 (height, width).
        class_names: one per class.
        colours: uint8 (classes, 3), RGB.

    Returns:
        A picture, at most `LONGEST` high and wide but for the legend at its right.
    """
    counts = np.bincount(labels.ravel(), minlength=len(class_names))
    step = max(1, -(-max(labels.shape) // LONGEST))
    small, shown = (
        np.ascontiguousarray(labels[::step, ::step]),
        Image.fromarray(np.ascontiguousarray(photo[::step, ::step])),
    )
    classes = Image.fromarray(small)
    classes.putpalette(colours.tobytes())
    tinted = Image.blend(shown, classes.convert("RGB"), OPACITY)
    picture = Image.composite(tinted, shown, Image.fromarray(small != BACKGROUND))
    present = [int(value) for value in np.argsort(-counts, kind="stable") if counts[value] and value != BACKGROUND]
    return _with_legend(
        picture, [(class_names[value], counts[value] / labels.size, colours[value]) for value in present]
    )


def _with_legend(picture: Image.Image, entries: Sequence[tuple[str, float, np.ndarray]]) -> Image.Image:
    size = min(max(picture.height // 40, 11), 26)
    font = ImageFont.load_default(size)
    texts = [f"{name} {share:.1%}" for name, share, _ in entries] or ["nothing found"]
    line, box = round(size * 1.5), size
    width = round(max(font.getlength(text) for text in texts)) + 3 * box
    rows = max(1, (picture.height - box) // line)
    columns = max(1, -(-len(texts) // rows))
    sheet = Image.new("RGB", (picture.width + columns * width, max(picture.height, line + box)), "white")
    sheet.paste(picture, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for place, text in enumerate(texts):
        column, row = divmod(place, rows)
        x, y = picture.width + column * width + box // 2, box // 2 + row * line
        if entries:
            draw.rectangle([x, y, x + box, y + box], fill=tuple(map(int, entries[place][2])), outline="gray")
        draw.text((x + 1.5 * box, y + box / 2), text, fill="black", font=font, anchor="lm")
    return sheet
