"""What TensorFlow says of itself is not shown, and everything else is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from clothseg import machine
from clothseg.training import backend


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)


def test_loading_it_prints_nothing_and_seeds_everything():
    code = (
        "import os; os.environ['TF_CPP_MIN_LOG_LEVEL'] = '2'\n"
        "from clothseg.training import backend; backend.load(seed=7, deterministic=True, threads=1, precision='auto')\n"
        "import random, numpy, tensorflow as tf\n"
        "print(tf.config.threading.get_intra_op_parallelism_threads(), random.random(), numpy.random.rand(),\n"
        "      float(tf.random.uniform(())))\n"
        "backend.load(seed=7, deterministic=True, threads=1, precision='auto')\n"
        "try:\n"
        "    backend.load(seed=7, deterministic=True, threads=2, precision='auto')\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)"
    )
    first, second = run(code), run(code)
    assert first.returncode == 0 and first.stderr == ""
    assert first.stdout == second.stdout
    drawn, refused = first.stdout.splitlines()
    assert drawn.startswith("1 ")
    # What has computed with one number of threads cannot take another.
    assert refused.startswith("UserError threads=2: this process has computed with 1 already")


def test_keras_does_not_import_scikit_learn_which_everything_else_can():
    code = (
        "import sys\nfrom clothseg.training import backend\n"
        "backend.load(seed=0, deterministic=False, threads=None, precision='auto')\n"
        "print('sklearn' in sys.modules)\n"
        "from sklearn.model_selection import KFold\n"
        "backend.load(seed=0, deterministic=False, threads=None, precision='auto')\n"
        "print(KFold.__module__ in sys.modules)"
    )
    assert run(code).stdout.split() == ["False", "True"]


def test_what_is_not_chatter_comes_through_even_after_an_error():
    code = (
        "import os\nfrom clothseg.training.backend import _without_chatter\n"
        "with _without_chatter():\n"
        "    os.write(2, b'I0000 00:00:1.2 33 port.cc:153] oneDNN custom operations are on.\\n')\n"
        "    os.write(2, b'E0000 00:00:1.2 33 allocator.cc:1] out of memory\\n')\n"
        "    raise SystemExit(3)\n"
    )
    done = run(code)
    assert done.returncode == 3
    assert done.stderr == "E0000 00:00:1.2 33 allocator.cc:1] out of memory\n"


@pytest.mark.parametrize(
    "line",
    [
        "E0000 00:00:1.2 3 cuda_platform.cc:52] failed call to cuInit",
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    ],
)
def test_lines_seen_on_machines_without_a_gpu_are_chatter(line):
    from clothseg.training.backend import _CHATTER

    assert _CHATTER.match(line)


@pytest.mark.parametrize(
    ("precision", "name", "given", "wanted"),
    [
        ("auto", "Some CPU avx2", None, "1"), ("float32", "Some CPU avx2", None, "1"),
        ("mixed_bfloat16", "Some CPU avx2", None, None), ("mixed_float16", "Some CPU avx2", None, None),
        ("mixed_bfloat16", "Some CPU avx2 avx512f avx512_bf16", None, "1"), ("float32", "Some CPU avx2", "0", "0"),
    ],
)  # fmt: skip
def test_onednn_is_on_where_it_is_faster_unless_told_otherwise(precision, name, given, wanted, monkeypatch):
    flags = name.removeprefix("Some CPU ").split()
    monkeypatch.setattr(machine, "_processor", lambda: ("Some CPU", {"avx", *flags}))
    monkeypatch.setattr(backend, "_chosen", {})
    # As in a process that has not loaded it yet.
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    # First set, so that it is afterwards what it was before.
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", given or "")
    if given is None:
        del os.environ["TF_ENABLE_ONEDNN_OPTS"]
    backend._choose_onednn(precision)
    assert os.environ.get("TF_ENABLE_ONEDNN_OPTS") == wanted


@pytest.mark.parametrize(
    ("flags", "first", "second", "told"),
    [
        ("avx2", "float32", "mixed_bfloat16", "mixed_bfloat16 is computed by oneDNN here"),
        ("avx2", "mixed_bfloat16", "auto", "auto is computed without oneDNN here"),
        ("avx2", "auto", "float32", None),
        ("avx2 avx512f avx512_bf16 avx512_vnni", "float32", "mixed_bfloat16", None),
    ],
)
def test_what_the_first_training_of_a_process_decided_is_told_to_those_after_it(
    flags, first, second, told, monkeypatch, caplog
):
    monkeypatch.setattr(machine, "_processor", lambda: ("Some CPU", {"avx", *flags.split()}))
    monkeypatch.setattr(backend, "_chosen", {})
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "")
    del os.environ["TF_ENABLE_ONEDNN_OPTS"]
    with monkeypatch.context() as not_loaded:
        not_loaded.delitem(sys.modules, "tensorflow", raising=False)
        backend._choose_onednn(first)
    monkeypatch.setitem(sys.modules, "tensorflow", object())
    before = os.environ.get("TF_ENABLE_ONEDNN_OPTS")
    backend._choose_onednn(second)
    assert os.environ.get("TF_ENABLE_ONEDNN_OPTS") == before
    assert told in caplog.text if told else not caplog.records
