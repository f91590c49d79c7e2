"""What values of options are checked by, in more than one place."""

from __future__ import annotations

import math
from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Real
from typing import TypeGuard


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number; true and false are none."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def is_count(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number of at least 1; true is none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def suggestion(given: object, known: Iterable[str]) -> str:
    """What was probably meant, as the beginning of a sentence: "did you mean hat? ", or nothing."""
    near = get_close_matches(str(given), [*known], n=1)
    return f"did you mean {near[0]}? " if near else ""
