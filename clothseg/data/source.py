"""The contract of a data set: named pairs of a photo and its labels."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from clothseg.errors import UserError


class DataError(UserError):
    """Data that cannot be used.

    Attributes:
        problems: what is wrong, by the name of the example (or file) it is wrong with.
    """

    def __init__(self, message: str, problems: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.problems = dict(problems or {})


@runtime_checkable
class Source(Protocol):
    """Named pairs of a photo and its labels, each at its own size.

    Attributes:
        name: what the data set is called in run names, cache folders and tables.
        class_names: one name per label value, background first.
    """

    name: str
    class_names: tuple[str, ...]

    def names(self) -> tuple[str, ...]:
        """Name of every example, sorted. May scan folders or download; raises `DataError` where nothing can be had."""
        ...

    def identity(self) -> dict[str, Any]:
        """All that determines what `names` and `read` give, fit for JSON: options, file names, sizes, times."""
        ...

    def read(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """One pair: photo uint8 (height, width, 3) in 0..255, labels uint8 (height, width).

        Raises:
            DataError: the file is unreadable, or photo and labels do not fit together; the message says which and why.
        """
        ...

    def problems(self) -> dict[str, str]:
        """What is wrong without decoding anything (a missing partner, an empty file), by the name of the example."""
        ...
