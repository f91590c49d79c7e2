from __future__ import annotations

from pathlib import Path

import pytest

from clothseg import machine

CPUINFO = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu avx avx2 avx512f avx512_vnni sse\n"


def test_a_processor_is_told_with_the_instructions_that_kernels_are_chosen_by(monkeypatch):
    keras = pytest.importorskip("keras")
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["cpu:0"])
    monkeypatch.setattr(Path, "read_text", lambda self, encoding: CPUINFO)
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 3)
    assert machine.processor() == "Some CPU @ 2 GHz avx2 avx512f"
    assert machine.description(threads=None) == "Some CPU @ 2 GHz avx2 avx512f, 3 threads"
    assert machine.description(threads=2) == "Some CPU @ 2 GHz avx2 avx512f, 2 threads"


@pytest.mark.parametrize(
    ("variable", "flags", "without"),
    [
        ("0", "avx avx2 avx512_vnni", True), ("1", "avx avx2", False), ("", "avx avx2", True),
        ("", "avx avx2 avx_vnni", False), ("", "asimd", False),
    ],
)  # fmt: skip
def test_it_tells_that_tensorflow_computes_without_onednn(variable, flags, without, monkeypatch):
    keras = pytest.importorskip("keras")
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["cpu:0"])
    monkeypatch.setattr(Path, "read_text", lambda self, encoding: f"model name : Some CPU\nflags : {flags}\n")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", variable)
    assert machine.description(threads=2).endswith(", without oneDNN") is without


def test_where_the_system_does_not_tell_there_is_a_name_all_the_same(monkeypatch):
    def none(self, encoding):
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", none)
    assert machine.processor() and machine.has_bfloat16() is False


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("flags : fpu avx512f avx512_bf16", True), ("flags : amx_bf16 amx_tile", True), ("flags : avx512f", False)],
)
def test_the_processors_own_list_decides_about_bfloat16(monkeypatch, flags, expected):
    monkeypatch.setattr(Path, "read_text", lambda self, encoding: flags)
    assert machine.has_bfloat16() is expected


def test_gpus_go_before_the_processor(monkeypatch):
    keras = pytest.importorskip("keras")
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["gpu:0"])
    # Whatever it is called, it is no processor.
    assert "threads" not in machine.description(threads=1)
