"""Fixtures that every part of the tests may use. Nothing here imports TensorFlow."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Real photos and weights lie in a folder `shared` beside the checkout, where there is one.
SHARED = Path(os.environ.get("CLOTHSEG_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def _shared(*parts: str) -> Path:
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs {'/'.join(parts)} beside the checkout")
    return path


@pytest.fixture(scope="session")
def ccp_root() -> Path:
    """The real Clothing Co-Parsing data set."""
    return _shared("data", "ccp")


@pytest.fixture(scope="session")
def weights_folder() -> Path:
    """Real ImageNet weights."""
    return _shared("weights")
