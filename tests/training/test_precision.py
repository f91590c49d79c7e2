"""Which number format is chosen."""

from __future__ import annotations

import pytest

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
    monkeypatch.setattr(precision, "_cpu_has_bfloat16", lambda: cpu)
    assert precision.choose("auto") == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("flags : fpu avx512f avx512_bf16", True), ("flags : amx_bf16 amx_tile", True), ("flags : avx512f", False)],
)
def test_the_processors_own_list_decides(monkeypatch, tmp_path, flags, expected):
    (tmp_path / "cpuinfo").write_text(flags)
    monkeypatch.setattr(precision, "Path", lambda _: tmp_path / "cpuinfo")
    assert precision._cpu_has_bfloat16() is expected


def test_a_system_that_does_not_list_it_is_taken_to_lack_it(monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "Path", lambda _: tmp_path / "nothing")
    assert precision._cpu_has_bfloat16() is False
