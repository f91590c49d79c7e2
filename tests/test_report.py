"""Runs become pages, which lie where runs keep what they leave."""

from __future__ import annotations

import re

import pytest


def row(text: str, name: str) -> list[str]:
    """The cells of a score's row."""
    cells = re.search(rf'<th scope="row">{name}</th>(.*?)</tr>', text, re.DOTALL)[1]
    return re.findall(r"<td[^>]*>([^<]*)</td>", cells)


def test_a_run_gets_its_page_with_the_scores_that_it_has(clothseg, three_runs):
    run = three_runs.runs["short"]
    done = clothseg("report", f"runs={run.info.run_id}", "figure_photos=2", "output=kept", folder=three_runs.folder)
    assert done.returncode == 0, done.stderr
    assert "kept/report_val_native.html" in done.stdout and run.info.run_id in done.stdout
    text = (three_runs.artifacts_of(run) / "report_val_native.html").read_text(encoding="utf-8")
    assert text == (three_runs.folder / "kept" / "report_val_native.html").read_text(encoding="utf-8")
    for score, told in (("accuracy", "accuracy"), ("clothing_miou", "clothing mean IoU")):
        assert row(text, told)[1] == f"{run.data.metrics[f'val_native/{score}']:.3f}"
    assert row(text, "accuracy")[0] == f"{run.data.metrics['val_native/background_accuracy']:.3f}"
    assert text.count('class="example"') == 2 and text.count("<svg") == 3
    assert run.info.run_id in text and "schedule.phases.training.epochs" in text


def test_several_runs_get_a_page_in_a_run_of_their_own(clothseg, three_runs):
    given = ",".join(three_runs.id(name) for name in ("short", "long"))
    done = clothseg(
        "report", f"runs=[{given}]", "label_groups=three", "figure_photos=1", "flip=true", folder=three_runs.folder
    )
    assert done.returncode == 0, done.stderr
    (new,) = three_runs.client().search_runs(["1"], "tags.role = 'report'")
    assert new.info.status == "FINISHED" and new.info.run_id in done.stdout
    text = (three_runs.artifacts_of(new) / "report_val_native_flip_three.html").read_text(encoding="utf-8")
    background, first, second, difference = map(float, row(text, "accuracy"))
    assert 0 < background < 1 and difference == pytest.approx(second - first, abs=2e-3)
    assert "prediction B of" in text and text.count("swatch") > 3
    # Person, clothes and background.
    assert len(re.findall(r'<th scope="row" data-value="', text)) == 3


def test_runs_in_folders_need_a_place_for_their_page(clothseg, three_runs, tmp_path):
    given = three_runs.artifacts("short")
    done = clothseg("report", f"runs={given}", folder=tmp_path)
    assert done.returncode == 2 and "output=FOLDER says where it goes" in done.stderr
    done = clothseg("report", f"runs={given}", "output=kept", "figure_photos=0", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "kept" / "report_val_native.html").read_text(encoding="utf-8")
    # No metrics, so no curves; no photos were asked for.
    assert "<svg" not in text and 'class="example"' not in text and row(text, "mean IoU")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "runs"),
        (["runs=[]"], "runs=[]: list should have at least 1 item"),
        (["runs=[a,b,c,d,e,f]"], "list should have at most 5 items"),
        (["runs=[last,last]"], "which are one run; name different ones"),
        (["runs=nowhere"], "run=nowhere is not in sqlite"),
        (["runs=last", "figure_photos=-1"], "figure_photos=-1: input should be greater than or equal to 0"),
        (["runs=last", "split=test"], "split=test of run last is empty; it has val, train"),
        (["runs=last", "output=mlflow.db/page"], "output=mlflow.db/page cannot be made"),
    ],
)
def test_what_no_page_can_be_made_of_is_told_on_one_line(clothseg, three_runs, options, told):
    done = clothseg("report", *options, folder=three_runs.folder)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert told in done.stderr
