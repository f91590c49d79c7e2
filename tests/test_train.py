"""A real two-phase training on paperdoll, as a user starts it, checked through MLflow's own client."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from small_backbone import SMALL_BACKBONE

SMALL = (
    "experiment=article", "dataset=paperdoll", "dataset.count=25", "image_size=[32,32]", "batch_size=8",
    "augmentation.copies=[brightness,rotate]",
    "schedule.phases.frozen.epochs=2", "schedule.phases.fine_tuning.epochs=1",
    "schedule.phases.frozen.steps_per_epoch=3",
    "schedule.phases.fine_tuning.learning_rate=0.0005",
    "schedule.phases.fine_tuning.steps_per_epoch=null",
    "precision=float32",
)  # fmt: skip
# Keras's network where the test is about what becomes of it, and else one that builds faster.
KERAS_BACKBONE = ("backbone=mobilenetv2", "backbone.weights=null")
FAST = (*SMALL, *SMALL_BACKBONE, "tracking.log_model=false")
SCORES = (
    "loss", "accuracy", "miou", "clothing_miou", "clothing_accuracy", "mean_recall", "frequency_weighted_iou", "dice"
)  # fmt: skip


def client(folder: Path):
    import mlflow

    # Bare `mlflow ui` in the folder of the run opens just this store.
    return mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


def only_run(folder: Path):
    opened = client(folder)
    (run,) = opened.search_runs([opened.get_experiment_by_name("clothseg").experiment_id])
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory, clothseg):
    folder = tmp_path_factory.mktemp("train")
    done = clothseg("train", *SMALL, *KERAS_BACKBONE, "+tracking.tags.paper=ours", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, done, only_run(folder)


@pytest.fixture(scope="module")
def artifacts(finished) -> Path:
    folder, _, run = finished
    return folder / "mlruns" / run.info.experiment_id / run.info.run_id / "artifacts"


def history(finished, metric: str) -> list[tuple[int, float]]:
    folder, _, run = finished
    return [(point.step, point.value) for point in client(folder).get_metric_history(run.info.run_id, metric)]


def test_a_run_ends_finished_under_a_name_that_says_what_was_run(finished):
    _, done, run = finished
    assert run.info.status == "FINISHED"
    assert run.info.run_name.startswith("article mobilenetv2 dataset=paperdoll")
    assert "Traceback" not in done.stderr
    assert run.info.run_id in done.stdout


@pytest.mark.parametrize("part", ["train", "val"])
@pytest.mark.parametrize("score", SCORES)
def test_scores_are_on_one_step_axis_across_phases(finished, part, score):
    points = history(finished, f"{part}/{score}")
    assert [step for step, _ in points] == [1, 2, 3]
    assert all(np.isfinite(value) for _, value in points)


def test_speed_rate_and_the_all_background_accuracy_stand_beside_them(finished):
    assert [value for _, value in history(finished, "learning_rate")] == pytest.approx([0.001, 0.001, 0.0005])
    assert all(value > 0 for _, value in history(finished, "images_per_second"))
    background = {value for _, value in history(finished, "val/background_accuracy")}
    assert len(background) == 1 and 0.5 < background.pop() < 1


def test_the_machine_is_watched(finished):
    assert any(name.startswith("system/") for name in finished[2].data.metrics)


def test_parameters_and_tags_make_runs_findable_and_comparable(finished):
    run = finished[2]
    wanted = {
        "batch_size": "8",
        "optimizer.learning_rate": "0.001",
        "backbone.name": "mobilenetv2",
        "schedule.phases.frozen.epochs": "2",
        "dataset.count": "25",
        "precision_used": "float32",
    }
    assert wanted.items() <= run.data.params.items()
    assert {
        "preset": "article",
        "backbone": "mobilenetv2",
        "dataset": "paperdoll",
        "paper": "ours",
    }.items() <= run.data.tags.items()
    assert "batch_size=8" in run.data.tags["command"]
    assert "version.keras" in run.data.tags


def test_the_data_are_inputs_of_the_run(finished):
    inputs = finished[2].inputs.dataset_inputs
    assert [item.dataset.name for item in inputs] == ["paperdoll", "paperdoll"]
    assert len({item.dataset.digest for item in inputs}) == 2
    assert len({tag.value for item in inputs for tag in item.tags if tag.key == "fingerprint"}) == 1
    contexts = {tag.value for item in inputs for tag in item.tags if tag.key == "mlflow.data.context"}
    assert contexts == {"training", "validation"}


def test_the_split_is_the_articles_call(artifacts):
    from sklearn.model_selection import train_test_split

    parts = json.loads((artifacts / "data" / "split.json").read_text())
    names = sorted(parts["train"] + parts["validation"])
    train_names, validation_names = train_test_split(names, test_size=0.2, random_state=0)
    assert (parts["train"], parts["validation"]) == (train_names, validation_names)


def test_figures_show_both_phases(artifacts):
    from PIL import Image

    names = {path.name for path in (artifacts / "figures").iterdir()}
    assert names == {
        "samples.png", "augmentation.png", "curves.png", "class_iou.png", "confusion.png",
        "predictions_1_frozen.png", "predictions_1_frozen_jet.png",
        "predictions_2_fine_tuning.png", "predictions_2_fine_tuning_jet.png",
        "val_native_class_iou.png", "val_native_confusion.png", "val_native_calibration.png",
    }  # fmt: skip
    for name in names:
        with Image.open(artifacts / "figures" / name) as image:
            assert min(image.size) > 200 and len(image.convert("RGB").getcolors(10**7)) > 10


def test_the_table_of_classes_agrees_with_the_last_epochs_scores(finished, artifacts):
    import csv

    from clothseg.data.labels import CLASS_NAMES

    with (artifacts / "tables" / "classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(row["name"] for row in rows) == CLASS_NAMES
    present = [float(row["iou"]) for row in rows if row["iou"]]
    assert len(present) == sum(int(row["pixels_labelled"]) > 0 for row in rows)
    assert np.mean(present) == pytest.approx(history(finished, "val/miou")[-1][1], abs=1e-5)
    # Every pixel of every validation photo was scored.
    assert sum(int(row["pixels_labelled"]) for row in rows) == 5 * 32 * 32


def test_the_composed_configuration_can_be_run_again(clothseg, artifacts, tmp_path):
    from omegaconf import OmegaConf

    logged = OmegaConf.load(artifacts / "config" / "config.yaml")
    options = ("--config-path", str(artifacts / "config"), "--config-name", "config", "--cfg", "job")
    again = clothseg("train", *options, folder=tmp_path)
    assert OmegaConf.create(again.stdout) == logged
    assert logged.batch_size == 8 and logged.schedule.phases.fine_tuning.learning_rate == 0.0005


def test_best_and_last_weights_are_kept_and_fit_the_model(artifacts, finished):
    import keras

    folder, _, run = finished
    best_epoch, best = max(history(finished, "val/miou"), key=lambda point: (point[1], -point[0]))
    metrics = run.data.metrics
    assert metrics["val_best/epoch"] == best_epoch and metrics["val_best/miou"] == best
    (path,) = folder.glob("mlruns/*/models/*/artifacts/artifacts/network.keras")
    network = keras.models.load_model(path, compile=False).get_layer("unet")
    kernel = network.get_layer("logits").kernel
    assert {path.name for path in (artifacts / "weights").iterdir()} == {"best.weights.h5", "last.weights.h5"}
    of_model = kernel.numpy().copy()
    network.load_weights(artifacts / "weights" / "best.weights.h5")
    assert np.array_equal(kernel.numpy(), of_model) == (best_epoch == 3)
    network.load_weights(artifacts / "weights" / "last.weights.h5")
    assert np.array_equal(kernel.numpy(), of_model)
    # MLflow has them now; nothing is kept twice.
    assert not [*(folder / "outputs").rglob("*.weights.h5"), *(folder / "outputs").rglob("*.npz")]


def test_the_logged_model_maps_raw_photos_of_any_size_to_label_maps(clothseg, finished):
    folder, _, run = finished
    code = (
        "import base64, io, sys, mlflow, numpy as np, pandas\n"
        "from PIL import Image\n"
        "sys.modules['clothseg'] = None\n"  # who takes the model away does not have this package
        f"mlflow.set_tracking_uri('sqlite:///{folder / 'mlflow.db'}')\n"
        f"model = mlflow.pyfunc.load_model('runs:/{run.info.run_id}/model')\n"
        "photo, file = np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8), io.BytesIO()\n"
        "Image.fromarray(photo).save(file, format='PNG')\n"
        "(answer,) = model.predict(pandas.DataFrame({'photo': [file.getvalue()]}))\n"
        "labels = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer['label_map']))))\n"
        "assert labels.shape == (50, 40) and labels.dtype == np.uint8 and labels.max() < 59, labels\n"
        "assert sum(found['pixels'] for found in answer['classes']) == 50 * 40, answer['classes']\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=clothseg.environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_same_seed_same_numbers_and_prepared_data_are_used_again(clothseg, finished, tmp_path):
    folder, _, run = finished
    again = clothseg("train", *SMALL, *KERAS_BACKBONE, f"prepare.cache={folder / 'cache'}", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "preparing" not in again.stdout
    repeated = only_run(tmp_path).data.metrics
    for name in ("train/loss", "val/loss", "val/accuracy", "val/miou"):
        assert repeated[name] == run.data.metrics[name], name


def test_a_finished_run_becomes_a_result_and_a_row_of_the_table(clothseg, finished):
    folder, _, run = finished
    done = clothseg("results", f"run={run.info.run_id}", "name=small", folder=folder)
    assert done.returncode == 0, done.stderr
    result = json.loads((folder / "experiments" / "small" / "result.json").read_text())
    assert result["accuracy"] == run.data.metrics["val/accuracy"] and result["epochs"] == 3
    assert result["command"].startswith("python -m clothseg.train experiment=article dataset=paperdoll")
    table = (folder / "experiments" / "README.md").read_text()
    assert f"| [small](small) | mobilenetv2 | float32 | 3 | {result['background_accuracy']:.3f} |" in table
    native = result["native"]["plain"]
    assert native["miou"] == pytest.approx(run.data.metrics["val_native/miou"], abs=1e-6)
    assert f"| [small](small) | plain | {native['accuracy']:.3f} | {native['miou']:.3f} |" in table
    epochs = (folder / "experiments" / "small" / "metrics.csv").read_text().splitlines()
    assert epochs[0].startswith("epoch,images_per_second,learning_rate,train/accuracy") and len(epochs) == 4
    kept = "".join(
        path.read_text() for path in (folder / "experiments").rglob("*") if path.suffix in {".json", ".yaml"}
    )
    assert str(folder) not in kept
    # Taking it in again replaces it; the table alone can be drawn up again.
    assert clothseg("results", f"run={run.info.run_id}", "name=small", folder=folder).returncode == 0
    assert clothseg("results", folder=folder).returncode == 0
    assert (folder / "experiments" / "README.md").read_text() == table


def test_a_run_that_does_not_exist_and_a_folder_without_results_are_told(clothseg, finished, tmp_path):
    folder, _, _ = finished
    unknown = clothseg("results", "run=0123", folder=folder)
    assert unknown.returncode == 2 and "run=0123 is not in sqlite" in unknown.stderr
    empty = clothseg("results", folder=tmp_path)
    assert empty.returncode == 2 and "holds no result yet" in empty.stderr and empty.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_computing_maps_anew_needs_batch_norms_in_one_operation(clothseg, tmp_path):
    options = ("experiment=quickstart", "gradient_checkpointing=true", "fused_layers=false")
    done = clothseg("train", *options, folder=tmp_path)
    told = "gradient_checkpointing=true needs batch norms in one operation; fused_layers=true has them"
    assert done.returncode == 2 and told in done.stderr and done.stderr.count("\n") == 1


def test_ctrl_c_keeps_what_was_trained_and_marks_the_run_killed(clothseg, tmp_path):
    process = clothseg.start(
        "train",
        *SMALL,
        *SMALL_BACKBONE,
        "schedule.phases.frozen.epochs=500",
        "tracking.log_model=false",
        folder=tmp_path,
    )
    for line in process.stdout:
        if line.startswith("frozen 3/501"):
            process.send_signal(signal.SIGINT)
            break
    told, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "clothseg: interrupted" in told.splitlines() and "Traceback" not in told
    run = only_run(tmp_path)
    assert run.info.status == "KILLED"
    kept = {item.path for item in client(tmp_path).list_artifacts(run.info.run_id, "weights")}
    assert kept == {f"weights/{which}.weights.h5" for which in ("best", "last", "interrupted")}
    assert run.data.metrics["val_best/epoch"] >= 1


@pytest.mark.long
def test_a_training_that_diverges_fails_with_the_reason(clothseg, tmp_path):
    done = clothseg(
        "train",
        *SMALL,
        *SMALL_BACKBONE,
        "optimizer=sgd",
        "optimizer.learning_rate=1e38",
        "divergence.rollbacks=1",
        "tracking.log_model=false",
        folder=tmp_path,
    )
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("clothseg: ")]
    assert "learning rate 1e+37" in line and "step" in line and "no rollback is left of 1" in line
    assert "Traceback" not in done.stderr
    run = only_run(tmp_path)
    assert run.info.status == "FAILED" and "learning rate 1e+37" in run.data.tags["failure"]
    # Which photos were in the batch stands there by name.
    assert re.search(
        r"epoch 1, step \d+ \(\w+, \w+, .*at learning rate 1e\+38; rollback 1 of 1", run.data.tags["rollbacks"]
    )


def test_a_training_that_diverges_keeps_the_weights_of_its_last_good_epoch(clothseg, tmp_path):
    # It does so in the first steps of the second phase, which are in its second epoch.
    options = (
        "optimizer=sgd", "schedule.phases.frozen.epochs=1", "schedule.phases.fine_tuning.learning_rate=1e38",
        "divergence.rollbacks=0", "tracking.log_model=false", "hydra.run.dir=out",
    )  # fmt: skip
    done = clothseg("train", *SMALL, *SMALL_BACKBONE, *options, folder=tmp_path)
    assert done.returncode == 2 and "epoch 2, step" in done.stderr and "Traceback" not in done.stderr
    run = only_run(tmp_path)
    assert run.info.status == "FAILED" and run.data.metrics["val_best/epoch"] == 1
    kept = []
    for which in ("last", "best"):
        (path,) = tmp_path.glob(f"mlruns/*/{run.info.run_id}/artifacts/weights/{which}.weights.h5")
        # Keras puts the optimizer's variables there too, which nothing loads.
        with h5py.File(path) as file:
            names: list[str] = []
            file.visit(names.append)
            names = [
                name for name in names if isinstance(file[name], h5py.Dataset) and not name.startswith("optimizer/")
            ]
            kept.append([file[name][()] for name in names])
    with np.load(tmp_path / "out" / "weights" / "last.npz") as file:
        kept.append(list(file.values()))
    assert all(np.isfinite(array).all() for arrays in kept for array in arrays)
    # The order is that of layers here and of names there.
    last, best, arrays = (sorted(array.tobytes() for array in arrays) for arrays in kept)
    assert last == best == arrays
    with np.load(tmp_path / "out" / "weights" / "state.npz") as state:
        assert len(json.loads(bytes(state["about"]))["epochs"]) == 1
        trained = {value.tobytes() for name, value in state.items() if name.startswith("weights_")}
    assert set(arrays) <= trained


@pytest.mark.long
def test_a_scheduler_that_ends_the_run_is_as_good_as_ctrl_c(clothseg, tmp_path):
    process = clothseg.start(
        "train",
        *SMALL,
        *SMALL_BACKBONE,
        "schedule.phases.frozen.epochs=500",
        "tracking.log_model=false",
        folder=tmp_path,
    )
    for line in process.stdout:
        if line.startswith("phase frozen"):
            # In the first epoch, before anything is there to keep.
            time.sleep(1)
            process.terminate()
            break
    process.communicate(timeout=120)
    assert process.returncode == 130
    assert only_run(tmp_path).info.status == "KILLED"


def test_with_keep_best_model_tables_and_figures_are_of_the_best_epoch(clothseg, tmp_path):
    # A learning rate that ruins the network in the second phase makes the best epoch one of the first.
    options = (
        "keep=best", "best_metric=val/accuracy", "schedule.phases.fine_tuning.learning_rate=10",
        "schedule.phases.fine_tuning.encoder=frozen",
    )  # fmt: skip
    done = clothseg("train", *SMALL[:-1], *SMALL_BACKBONE, *options, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path)
    best = int(run.data.metrics["val_best/epoch"])
    assert best < 3
    (artifacts,) = tmp_path.glob(f"mlruns/*/{run.info.run_id}/artifacts")
    assert (artifacts / "figures" / "predictions_best_epoch.png").is_file() or best == 2
    with (artifacts / "tables" / "confusion.csv").open() as file:
        import csv

        counts = np.array([row[1:] for row in list(csv.reader(file))[1:]], int)
    assert np.trace(counts) / counts.sum() == pytest.approx(run.data.metrics["val_best/accuracy"], abs=1e-6)
