"""A run is scored again at the photos' own sizes, from nothing but what MLflow has of it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from small_backbone import SMALL_BACKBONE

# Two sizes, the auxiliary head, groups of classes, padded photos, averaged weights: all that a run may be made of.
MODERN = (
    "experiment=article", "dataset=paperdoll", "dataset.count=25", "dataset.image_size=[80,48]", "image_size=[64,64]",
    "prepare.resize=pad", "batch_size=8", *SMALL_BACKBONE,
    "backbone.batch_norm_momentum=0.9", "augmentation=strong", "decoder=fpn", "loss=cross_entropy_dice",
    "optimizer=adamw", "optimizer.use_ema=true", "optimizer.ema_momentum=0.8", "learning_rate=cosine",
    "label_groups=three", "sampling=repeat_factor", "presence.weight=0.2", "schedule=progressive",
    "schedule.phases.small.image_size=[32,32]", "schedule.phases.small.epochs=2", "schedule.phases.large.epochs=2",
    "schedule.phases.large.batch_norm=frozen", "early_stopping.patience=5", "precision=float32",
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory, clothseg):
    folder = tmp_path_factory.mktemp("evaluate")
    done = clothseg("train", *MODERN, folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, run_of(folder), done.stdout


def run_of(folder: Path):
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("clothseg").experiment_id], "tags.preset LIKE '%'")
    return run


def table(folder: Path, run, name: str) -> list[dict[str, str]]:
    path = folder / "mlruns" / run.info.experiment_id / run.info.run_id / "artifacts" / "tables" / f"{name}.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_training_scores_itself_at_the_photos_own_size(trained):
    folder, run, told = trained
    assert "val_native, 5 photos" in told
    classes = table(folder, run, "val_native_classes")
    assert [row["name"] for row in classes] == ["background", "person", "clothes"]
    # Five photos of 80 x 48, without a pixel of padding.
    assert sum(int(row["pixels_labelled"]) for row in classes) == 5 * 80 * 48
    iou = [float(row["iou"]) for row in classes]
    assert run.data.metrics["val_native/miou"] == pytest.approx(sum(iou) / 3, abs=1e-5)
    assert len(table(folder, run, "val_native_photos")) == 5


def test_phases_of_two_sizes_are_one_training(trained):
    _, run, told = trained
    assert "small 2/4" in told and "large 4/4" in told
    assert run.data.metrics["val_best/epoch"] <= 4


def test_a_run_scores_the_same_again(clothseg, trained):
    folder, run, _ = trained
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    # Scored again, it gets the new scores.
    client.log_metric(run.info.run_id, "val_native/miou", 9, step=4)
    done = clothseg("evaluate", f"run={run.info.run_id}", "boundary=true", folder=folder)
    assert done.returncode == 0, done.stderr
    again = run_of(folder)
    for score in ("accuracy", "miou", "dice"):
        assert again.data.metrics[f"val_native/{score}"] == pytest.approx(
            run.data.metrics[f"val_native/{score}"], abs=1e-6
        )
        assert f"{again.data.metrics[f'val_native/{score}']:.4f}" in done.stdout
    assert 0 <= again.data.metrics["val_native/boundary_f"] <= 1
    assert again.info.status == "FINISHED" and again.info.end_time == run.info.end_time


def test_given_tags_and_flips_are_scores_of_their_own(clothseg, trained):
    folder, run, _ = trained
    for options, name in (
        (["tags=given", "run=last"], "val_native_tags"),
        (["flip=true", "adjustment=1", "split=train", "run=best:clothseg"], "train_native_flip_adjusted"),
    ):
        done = clothseg("evaluate", *options, folder=folder)
        assert done.returncode == 0 and f"{name}, " in done.stdout, done.stderr
        assert f"{name}/miou" in run_of(folder).data.metrics
    tagged = run_of(folder).data.metrics
    assert tagged["val_native_tags/accuracy"] >= run.data.metrics["val_native/accuracy"]


def test_a_folder_of_artifacts_is_scored_as_the_run_and_keeps_nothing_unless_told(clothseg, trained, tmp_path):
    folder, run, _ = trained
    artifacts = folder / "mlruns" / run.info.experiment_id / run.info.run_id / "artifacts"
    done = clothseg("evaluate", f"run={artifacts}", "output=kept", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    kept = {path.relative_to(tmp_path / "kept").as_posix() for path in (tmp_path / "kept").rglob("*.*")}
    assert kept == {
        "scores.json",
        "tables/val_native_classes.csv",
        "tables/val_native_photos.csv",
        "figures/val_native_class_iou.png",
        "figures/val_native_confusion.png",
        "figures/val_native_calibration.png",
        "figures/val_native_best_and_worst.png",
    }
    scores = json.loads((tmp_path / "kept" / "scores.json").read_text(encoding="utf-8"))
    assert scores["val_native/miou"] == pytest.approx(run.data.metrics["val_native/miou"], abs=1e-6)


@pytest.mark.long
def test_several_runs_and_scales_are_averaged_in_a_run_of_their_own(clothseg, trained):
    import mlflow

    folder, run, _ = trained
    one = run.info.run_id
    # A network averaged with itself is itself.
    done = clothseg("evaluate", f"run=[{one},last]", "figure_photos=0", folder=folder)
    assert done.returncode == 0, done.stderr
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (both,) = client.search_runs([run.info.experiment_id], "tags.role = 'evaluation'")
    assert both.info.status == "FINISHED" and both.data.tags["members"] == f"{one} {one}"
    assert both.data.metrics["val_native/miou"] == pytest.approx(run.data.metrics["val_native/miou"], abs=1e-6)
    done = clothseg("evaluate", f"run={one}", "scales=[1,1.5]", "figure_photos=0", folder=folder)
    assert done.returncode == 0, done.stderr
    assert client.get_run(one).data.metrics.keys() >= {"val_native_scales_1_1.5/miou"}
    client.delete_run(both.info.run_id)


def test_another_data_set_and_fewer_classes(clothseg, trained, tmp_path):
    folder, run, _ = trained
    groups = tmp_path / "label_groups"
    groups.mkdir()
    (groups / "two.yaml").write_text(
        "name: two\ngroups:\n  none: [background]\n  body: [person, clothes]\nrest: null\n"
    )
    done = clothseg(
        "evaluate", "--config-dir", str(tmp_path), "run=last", "dataset=paperdoll", "dataset.count=7",
        "dataset.image_size=[60,40]", "label_groups=two", folder=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [row["name"] for row in table(folder, run, "paperdoll_native_two_classes")] == ["none", "body"]
    assert len(table(folder, run, "paperdoll_native_two_photos")) == 7


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["run=0123"], "run=0123 is not in sqlite"),
        (["run=best:else"], "run=best:else: no finished training of that kind is in sqlite"),
        (["run=models:/none/1"], "run=models:/none/1 is not in sqlite"),
        (["run=mlruns"], "run=mlruns is a folder without config/config.yaml"),
        (["run=last", "dataset=paperdoll", "dataset.count=3", "adjustment=1"], "adjustment=1 needs the photos that"),
        (["run=last", "scales=[0]"], "scales.0=0: input should be greater than 0"),
        (["run=last", "label_groups=atr18"], "label_groups.groups.hat has hat, which is unknown"),
        (["run=RUN", "split=test"], "split=test of run RUN is empty; it has val, train"),
        (["run=RUN", "split=all"], "split=all: input should be 'val', 'test' or 'train'"),
        ([], "run"),
    ],
)
def test_what_cannot_be_scored_is_told_on_one_line(clothseg, trained, options, told):
    folder, run, _ = trained
    done = clothseg("evaluate", *(option.replace("RUN", run.info.run_id) for option in options), folder=folder)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert told.replace("RUN", run.info.run_id) in done.stderr


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("_target_: clothseg.data.paperdoll.Paperdoll", "_target_: os.system", "dataset._target_=os.system is none of"),
        ("_target_: clothseg.models.decoders.fpn", "_target_: os.system", "decoder._target_=os.system is none of"),
        ("count: 25", "count: {_target_: os.system, command: COMMAND}", "dataset.count._target_=os.system is none of"),
    ],
)
def test_a_folder_from_a_stranger_runs_nothing(clothseg, trained, tmp_path, before, after, told):
    folder, run, _ = trained
    artifacts = folder / "mlruns" / run.info.experiment_id / run.info.run_id / "artifacts"
    strange = Path(shutil.copytree(artifacts, tmp_path / "strange"))
    command = f"touch {tmp_path / 'canary'}"
    text = (strange / "config" / "config.yaml").read_text(encoding="utf-8")
    assert before in text
    indent = text[: text.index(before)].rpartition("\n")[2]
    more = f"\n{indent}command: {command}" if after.startswith("_target_") else ""
    text = text.replace(before, after.replace("COMMAND", command) + more)
    (strange / "config" / "config.yaml").write_text(text, encoding="utf-8")
    done = clothseg("evaluate", f"run={strange}", folder=folder)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert told in done.stderr
    assert not (tmp_path / "canary").exists()


def test_a_run_of_another_version_is_told_with_its_commit(clothseg, trained):
    folder, run, _ = trained
    config = folder / "mlruns" / run.info.experiment_id / run.info.run_id / "artifacts" / "config" / "config.yaml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("\nsplitting:", "\nsplit:"), encoding="utf-8")
    try:
        done = clothseg("evaluate", f"run={run.info.run_id}", folder=folder)
    finally:
        config.write_text(text, encoding="utf-8")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "splitting" in done.stderr and run.data.tags["git.commit"] in done.stderr
