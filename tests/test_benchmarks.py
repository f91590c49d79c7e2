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


def test_in_every_pair_the_target_is_what_the_script_has_just_ended_with(monkeypatch, tmp_path):
    from benchmarks import __main__ as rows

    ended = iter([(0.8, 100.0), (0.6, 90.0)])
    ours = [{"event": "epoch", "seconds": 10.0 * number, "accuracy": 0.5 + 0.1 * number} for number in (1, 2, 3)]
    order = []

    def events(self, command):
        order.append("script" if "benchmarks.article_script" in command else "ours")
        if order[-1] == "ours":
            return ours
        accuracy, seconds = next(ended)
        return [{"event": "epoch", "accuracy": accuracy}, {"event": "end", "seconds": seconds}]

    monkeypatch.setattr(rows.Setting, "events", events)
    monkeypatch.setattr(rows.Setting, "photos", lambda self: tmp_path)
    monkeypatch.setattr(rows, "_tell", lambda what: None)
    setting = rows.Setting(tmp_path, {"mobilenetv2": "a", "densenet169": "b"}, 2)
    assert rows.target(setting) == {"seconds": Compared((30.0, 10.0), (100.0, 90.0))}
    assert order == ["script", "ours", "script", "ours"]
    ended = iter([(0.9, 100.0), (0.6, 90.0)])
    with pytest.raises(rows.Skipped, match=r"reached 0.8000 at most, and the script 0.9000"):
        rows.target(setting)


def test_files_are_written_once_for_the_code_as_it_is(monkeypatch, tmp_path):
    from benchmarks import __main__ as rows

    made = []

    def events(self, command):
        made.append(command)
        (tmp_path / "files").mkdir()

    monkeypatch.setattr(rows.Setting, "events", events)
    setting = rows.Setting(tmp_path, {}, 1)
    for _ in range(2):
        setting.written(tmp_path / "files", ["write"])
    assert made == [["write"]]
    # As after a change, or when it was stopped.
    (tmp_path / "files" / "done").write_text("another")
    setting.written(tmp_path / "files", ["write"])
    assert len(made) == 2


def test_an_exported_file_is_opened_as_the_network_that_was_written(tmp_path):
    from benchmarks.step import CLASSES, exported

    file = exported(tmp_path / "network.onnx", 96)
    assert file.size == (96, 96) and file.resize == "squash" and len(file.class_names) == CLASSES
