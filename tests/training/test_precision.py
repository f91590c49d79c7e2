"""Which number format is chosen."""

from __future__ import annotations

import pytest

from clothseg import machine
from clothseg.training import precision


@pytest.mark.parametrize("name", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_what_is_asked_for_is_taken(name):
    assert precision.choose(name) == name


@pytest.mark.parametrize(
    ("accelerated", "gpu", "cpu", "expected"),
    [
        (False, False, True, "mixed_bfloat16"),
        (False, True, False, "float32"),
        (True, True, False, "mixed_bfloat16"),
        (True, False, True, "float32"),
    ],
)
def test_auto_takes_bfloat16_where_the_device_that_is_used_has_it(monkeypatch, accelerated, gpu, cpu, expected):
    monkeypatch.setattr(precision, "accelerated", lambda: accelerated)
    monkeypatch.setattr(precision, "_gpu_has_bfloat16", lambda: gpu)
    monkeypatch.setattr(machine, "has_bfloat16", lambda: cpu)
    assert precision.choose("auto") == expected
