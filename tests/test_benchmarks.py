"""Ratios of benchmarks are those that one works out by hand, and rows are kept one by one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from benchmarks.pairs import Compared, in_turns  # noqa: E402
from benchmarks.results import save, table  # noqa: E402


def test_the_ratio_is_that_of_medians_and_the_spread_that_within_pairs():
    one = Compared(ours=(1.0, 2.0, 9.0), theirs=(4.0, 4.0, 3.0))
    assert one.ratio == 0.5
    assert one.spread == (0.25, 3.0)


def test_pairs_are_measured_in_turns_and_what_only_one_has_is_left_out():
    order = []

    def measure(who):
        def once():
            order.append(who)
            return {"s": float(len(order)), who: 0.0}

        return once

    told = []
    found = in_turns(measure("ours"), measure("theirs"), pairs=3, tell=told.append)
    assert order == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert found == {"s": Compared((1.0, 4.0, 5.0), (2.0, 3.0, 6.0))}
    assert told[0] == "pair 1 of 3, ours: s 1, ours 0"
    with pytest.raises(ValueError, match="0 pairs"):
        in_turns(measure("a"), measure("b"), pairs=0, tell=told.append)
    with pytest.raises(ValueError, match="nothing is common"):
        in_turns(lambda: {"a": 1.0}, lambda: {"b": 1.0}, pairs=1, tell=told.append)


def test_a_row_measured_again_takes_the_place_of_the_old_one_and_others_stay(tmp_path):
    save(tmp_path, "a", {"s": 0.5}, {"s": Compared((1.0,), (4.0,))}, "old")
    save(tmp_path, "b", {}, {"s": Compared((3.0,), (2.0,))}, "old")
    save(tmp_path, "a", {"s": 0.5}, {"MB": Compared((1.0,), (1.0,)), "s": Compared((3.0,), (4.0,))}, "old")
    save(tmp_path, "a", {"s": 1 / 3}, {"s": Compared((1.0,), (4.0,))}, "new")
    kept = json.loads((tmp_path / "results.json").read_text())
    assert list(kept) == ["a", "b"] and kept["a"]["old"]["s"]["ratio"] == 0.75
    assert (tmp_path / "results.md").read_text() == table(kept)
    assert [line for line in table(kept).splitlines() if line.startswith(("| a", "| b", "-"))] == [
        "| a | MB | A | 1 | 1 | 1.00 | 1.00 to 1.00 (1) |  |",
        "| a | s | A | 3 | 4 | 0.75 | 0.75 to 0.75 (1) | 0.5 ✗ |",
        "| a | s | B | 1 | 4 | 0.25 | 0.25 to 0.25 (1) | 0.333 ✓ |",
        "| b | s | A | 3 | 2 | 1.50 | 1.50 to 1.50 (1) |  |",
        "- A: old",
        "- B: new",
    ]
    assert (tmp_path / "results.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["spede"], "there is no row spede; there are start, epochs, memory, whole, target, step,"),
        (["whole"], "whole needs trained weights; --densenet169 FILE names them"),
        (["tracked"], "tracked needs trained weights; --mobilenetv2 FILE names them"),
        (["start", "--pairs", "0"], "--pairs 0 measures nothing"),
    ],
)
def test_what_cannot_be_measured_is_told_on_one_line(arguments, told):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and told in done.stderr


def test_a_row_that_cannot_be_measured_here_is_left_out_on_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "gpu", "--output", str(tmp_path)],
        cwd=REPOSITORY, env=os.environ | {"PATH": ""}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "gpu is left out: it needs a GPU" in done.stdout and not any(tmp_path.iterdir())


def test_operations_of_convolutions_are_those_counted_by_hand():
    import keras

    from benchmarks.floor import convolutions

    photo = keras.Input((8, 8, 3))
    inner = keras.Model(photo, keras.layers.Conv2D(4, 3, strides=2, padding="same", name="down")(photo))
    up = keras.layers.Conv2DTranspose(5, 3, strides=2, padding="same", name="up")(inner(photo))
    across = keras.layers.DepthwiseConv2D(3, padding="same", name="across")(up)
    # 16 pixels x 9 places x 3 x 4 weights; 16 pixels x 9 x 4 x 5; 64 pixels x 9 x 5; a product and a sum each
    assert dict(convolutions(keras.Model(photo, across))) == {"down": 3456, "up": 5760, "across": 5760}
