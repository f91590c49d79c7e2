"""Annotations agree with each other and with the libraries', and the code looks as CONTRIBUTING.md has it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("command", ["mypy", "ruff check", "ruff format --check"])
def test_nothing_is_found(command):
    done = subprocess.run([sys.executable, "-m", *command.split()], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
