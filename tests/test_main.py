"""`python -m clothseg` lists the commands, and is quick about it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from clothseg.__main__ import commands, main


def test_every_entry_point_is_listed_with_its_line(capsys):
    assert main([]) == 0
    told = capsys.readouterr().out
    names = ("prepare", "train", "evaluate", "compare", "report", "predict", "register", "export", "results", "deliver")
    assert tuple(commands()) == names
    assert all(f"python -m clothseg.{name} " in told for name in names)
    assert all(len(line) > 15 and not line.startswith("`") for line in commands().values())


@pytest.mark.parametrize(
    ("given", "told"),
    [("train", "the command is python -m clothseg.train"), ("trian", "did you mean train? commands are")],
)
def test_what_is_no_command_is_told(capsys, given, told):
    assert main([given, "seed=1"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and told in printed.err


def test_nothing_heavy_is_loaded():
    code = (
        "import runpy, sys\ntry: runpy.run_module('clothseg', run_name='__main__')\nexcept SystemExit: pass\n"
        "print({'tensorflow', 'hydra', 'mlflow', 'numpy'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "set()" and "clothseg.train" in done.stdout
