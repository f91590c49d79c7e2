"""How numbers, tables and commands are written."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any


def duration(seconds: float) -> str:
    """Seconds as people say them: 45 s, 12 min 05 s, 3 h 20 min."""
    seconds = round(seconds)
    if seconds < 100:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def as_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as the text of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue()


def portable(text: str) -> str:
    """A command or configuration without the folders that only this machine has."""
    return re.sub(r"(?<=[=\[,'\"\s])/[^\s'\",\]]+", lambda path: PurePosixPath(path[0]).name, text)
