"""Real sweeps of tiny trainings, started as a user starts them, and seen through Optuna's and MLflow's own clients."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import optuna
import psutil
import pytest
from small_backbone import SMALL_BACKBONE

TINY = (
    "experiment=article", "dataset=paperdoll", "dataset.count=40", "image_size=[32,32]",
    # 128 examples, as many as the largest batch.
    *SMALL_BACKBONE, "augmentation=none", "augmentation.copies=[brightness,flip_horizontal,flip_vertical]",
    "decoder=fpn", "schedule=one_phase", "evaluation.native=false",
    "schedule.phases.training.epochs=2", "schedule.phases.training.steps_per_epoch=1",
    "tracking.log_model=false", "tracking.figures=false", "precision=float32", "sweep.presets=presets",
)  # fmt: skip
# Every trial but the baseline is below this.
PRUNED = ("sweep/pruner=none", "sweep.pruner._target_=optuna.pruners.ThresholdPruner", "+sweep.pruner.lower=2.0")


def sweep(clothseg, folder, *overrides, **environment):
    # What is given for a test comes last and wins.
    return clothseg("train", "-m", *TINY, *overrides, folder=folder, **environment)


def the_study(folder: Path, *, storage: str | None = None) -> optuna.Study:
    address = storage or f"sqlite:///{folder / 'optuna.db'}"
    (name,) = optuna.get_all_study_names(address)
    return optuna.load_study(study_name=name, storage=address)


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.trials]


def runs(folder: Path, *, experiment: str = "clothseg", store: str | None = None):
    """The parent run of the only study, and its children in the order of their trials."""
    import mlflow

    client = mlflow.MlflowClient(store or f"sqlite:///{folder / 'mlflow.db'}")
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    children = [run for run in found if "mlflow.parentRunId" in run.data.tags]
    (parent,) = [run for run in found if run not in children]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} <= {parent.info.run_id}
    return parent, sorted(children, key=lambda run: int(run.data.tags["trial"])), client


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "multirun" / "lr_batch_article" / "trials.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def wait_for(condition, *, process: subprocess.Popen, seconds: float = 240):
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.1)
    return found


def start(clothseg, folder, *overrides, **environment) -> subprocess.Popen:
    return clothseg.start("train", "-m", *TINY, *overrides, folder=folder, **environment)


def training(folder: Path, number: int):
    """A condition: this trial has reported its first epoch."""

    def check() -> optuna.trial.FrozenTrial | None:
        try:
            trials = the_study(folder).trials
        except Exception:
            # Not begun yet.
            return None
        return trials[number] if len(trials) > number and trials[number].intermediate_values else None

    return check


@pytest.fixture(scope="module")
def swept(tmp_path_factory, clothseg):
    """A sweep in which all but the baseline are pruned."""
    folder = tmp_path_factory.mktemp("sweep")
    options = ("sweep=lr_batch", "sweep.n_trials=3", *PRUNED, "tracking.figures=true")
    done = sweep(clothseg, folder, *options, MLFLOW_EXPERIMENT_NAME="ours")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done


def test_what_is_to_be_done_is_shown_first_and_every_trial_after(swept):
    lines = swept[1].stdout.splitlines()
    assert lines[0] == "study lr_batch_article in sqlite:///optuna.db: 0 of 3 trials done, 3 to do"
    assert "  optimizer.learning_rate    0.0001 to 0.01, log" in lines
    assert "  batch_size                 16 to 128, log" in lines
    assert any(
        line.split() == ["baseline,", "trial", "0", "optimizer.learning_rate=0.001", "batch_size=64"] for line in lines
    )
    ended = [line for line in lines if line.startswith("trial ") and " in " in line]
    assert [line.split()[2] for line in ended] == ["COMPLETE", "PRUNED", "PRUNED"]
    assert sum("of 3 done" in line for line in lines) == 3 and any(line.endswith("left") for line in lines)
    assert "Traceback" not in swept[1].stderr


def test_the_first_trial_is_the_baseline_and_comes_to_its_end(swept):
    study = the_study(swept[0])
    assert study.trials[0].params == {"optimizer.learning_rate": 0.001, "batch_size": 64}
    assert states(study) == ["COMPLETE", "PRUNED", "PRUNED"]
    assert list(study.trials[0].intermediate_values) == [1, 2]
    assert [list(trial.intermediate_values) for trial in study.trials[1:]] == [[1], [1]]


def test_trials_are_nested_in_one_run_and_pruned_ones_are_marked_and_keep_their_curves(swept):
    parent, children, client = runs(swept[0], experiment="ours")
    assert (parent.info.status, parent.info.run_name) == ("FINISHED", "lr_batch_article")
    assert [run.info.status for run in children] == ["FINISHED", "KILLED", "KILLED"]
    assert [run.data.tags["trial.state"] for run in children] == ["COMPLETE", "PRUNED", "PRUNED"]
    assert children[1].data.tags["stopped"].startswith("pruned after epoch 1")
    assert [len(client.get_metric_history(run.info.run_id, "val/miou")) for run in children] == [2, 1, 1]
    figures = [artifact.path for artifact in client.list_artifacts(children[1].info.run_id, "figures")]
    assert "figures/curves.png" in figures
    # A command that gives the trial alone.
    assert "sweep" not in children[0].data.tags["command"] and "batch_size=64" in children[0].data.tags["command"]
    assert not any(key.startswith("sweep") for key in children[0].data.params)


def test_the_study_is_seen_in_its_run(swept):
    parent, _, client = runs(swept[0], experiment="ours")
    assert parent.data.tags["best.trial"] == "0" and parent.data.tags["best.batch_size"] == "64"
    names = {artifact.path for artifact in client.list_artifacts(parent.info.run_id, "figures")}
    assert {"figures/history.png", "figures/intermediate_values.png", "figures/slice.png"} <= names
    assert [artifact.path for artifact in client.list_artifacts(parent.info.run_id, "tables")] == ["tables/trials.csv"]


def test_the_table_says_how_far_each_trial_is_from_the_baseline(swept):
    rows = table(swept[0])
    assert [row["state"] for row in rows] == ["COMPLETE", "PRUNED", "PRUNED"]
    assert rows[0]["val/miou - baseline"] == "0.0" and rows[0]["remark"] == "baseline"
    assert float(rows[0]["val/miou"]) == pytest.approx(the_study(swept[0]).trials[0].value, abs=1e-6)
    assert [row["epochs"] for row in rows] == ["2", "1", "1"]


@pytest.mark.long
def test_the_same_command_with_more_trials_goes_on_in_the_same_run(swept, clothseg):
    folder = swept[0]
    before, _, _ = runs(folder, experiment="ours")
    # The first command again has nothing to do; the second has one trial, which is not pruned.
    for count, pruner in ((3, PRUNED), (4, ("sweep/pruner=none",))):
        done = sweep(
            clothseg, folder, "sweep=lr_batch", f"sweep.n_trials={count}", *pruner, MLFLOW_EXPERIMENT_NAME="ours"
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"3 of {count} trials done, {count - 3} to do" in done.stdout
    after, children, _ = runs(folder, experiment="ours")
    assert after.info.run_id == before.info.run_id and len(children) == 4
    study = the_study(folder)
    assert states(study) == ["COMPLETE", "PRUNED", "PRUNED", "COMPLETE"]
    # A sampler that began anew would have tried the same again.
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 4
    assert table(folder)[3]["val/miou - baseline"] != ""


def test_a_trial_is_what_the_same_training_is_alone_and_the_winner_is_a_preset(swept, clothseg):
    folder = swept[0]
    best = the_study(folder).best_trial
    preset = folder / "presets" / "experiment" / "best_of_lr_batch_article.yaml"
    assert f"# The best trial of the study lr_batch_article: trial {best.number}" in preset.read_text(encoding="utf-8")
    (command,) = [line for line in swept[1].stdout.splitlines() if "experiment=best_of_lr_batch_article" in line]
    arguments = command.split()[3:]
    done = clothseg("train", *arguments, folder=folder, MLFLOW_EXPERIMENT_NAME="alone")
    assert done.returncode == 0, done.stderr
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("alone").experiment_id])
    reached = max(point.value for point in client.get_metric_history(run.info.run_id, "val/miou"))
    assert reached == pytest.approx(best.value, abs=1e-12)


def test_a_sweep_is_taken_in_as_a_result(swept, clothseg):
    folder = swept[0]
    parent, _, _ = runs(folder, experiment="ours")
    done = clothseg("results", f"run={parent.info.run_id}", "name=lr_batch", "experiments=kept", folder=folder)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (folder / "kept" / "lr_batch").iterdir()} == {"figures", "sweep.json", "trials.csv"}
    row = next(
        line for line in (folder / "kept" / "README.md").read_text().splitlines() if "(lr_batch/trials.csv)" in line
    )
    best, trials = the_study(folder).best_trial, the_study(folder).trials
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[1:6] == ["val/miou", str(states(the_study(folder)).count("COMPLETE")), "2", "0", "0"]
    assert cells[6] == str(sum(trial.user_attrs["epochs"] for trial in trials))
    assert cells[8:10] == [f"{trials[0].value:.4f}", f"{best.value:.4f}"] and f"trial {best.number}: " in cells[10]


def test_another_configuration_does_not_mix_with_a_study(swept, clothseg):
    done = sweep(clothseg, swept[0], "sweep=lr_batch", "sweep.n_trials=9", "seed=1")
    assert done.returncode == 2
    assert "was begun with other configuration: seed=0, now seed=1" in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("batch_size=32", "optimizer.learning_rate=0.001"), "search space is empty"),
        (("batch_size=choice(16,32)",), "sweep.baseline.batch_size=64 is not in the search space"),
        (("sweep.n_trials=0",), "n_trials"),
        (("sweep/pruner=medain",), "did you mean sweep/pruner=median"),
        (("sweep.objectives=[val/miou,val/accuracy]",), "sweep.direction"),
        (("hydra/sweeper/sampler=grid",), "choice"),
        (("hydra.launcher.n_jobs=0",), "n_jobs"),
        (("image_size=[33,33]",), "33"),
        (("sweep.storage=sqlite:////no/such/folder/at.db",), "sweep.storage"),
    ],
)
def test_what_every_trial_would_fail_for_is_told_on_one_line_before_the_first(tmp_path, clothseg, overrides, told):
    done = sweep(clothseg, tmp_path, "sweep=lr_batch", "sweep.n_trials=1", *overrides)
    assert done.returncode == 2, done.stdout
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and "Traceback" not in done.stderr
    assert not (tmp_path / "mlruns").exists()


def test_a_sweep_without_multirun_says_how_to_run_it(tmp_path, clothseg):
    done = clothseg("train", "sweep=lr_batch", folder=tmp_path)
    assert done.returncode == 2
    assert (
        done.stderr.strip() == "clothseg: sweep=lr_batch is for multiruns; python -m clothseg.train -m sweep=lr_batch"
    )


@pytest.mark.long
def test_a_sweep_in_which_everything_fails_stops_early_with_the_reason(tmp_path, clothseg):
    begun = time.monotonic()
    done = clothseg("train", "-m", "sweep=lr_batch", "dataset.root=nowhere", "dataset.download=false", folder=tmp_path)
    assert done.returncode == 2
    assert "3 of the first 3 trials failed, the last one: " in done.stderr and "nowhere" in done.stderr
    study = the_study(tmp_path)
    assert states(study) == ["FAIL"] * 3 and "nowhere" in study.trials[0].user_attrs["failure"]
    assert time.monotonic() - begun < 60
    parent, _, _ = runs(tmp_path)
    assert parent.info.status == "FAILED"
    # Whoever starts it again has put something right, or is told again.
    done = clothseg("train", "-m", "sweep=lr_batch", "dataset.root=nowhere", "dataset.download=false", folder=tmp_path)
    assert done.returncode == 2 and states(the_study(tmp_path)) == ["FAIL"] * 6


@pytest.mark.skipif(shutil.which("srun") is not None, reason="needs to be no cluster")
def test_a_launcher_that_cannot_start_anything_ends_the_sweep_and_uses_up_no_trial(tmp_path, clothseg):
    options = ("sweep=lr_batch", "sweep.n_trials=2", "hydra/launcher=slurm", "sweep.n_jobs=2")
    for _ in range(2):
        done = sweep(clothseg, tmp_path, *options)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert "hydra/launcher=slurm: it cannot start a trial here: " in done.stderr
    study = the_study(tmp_path)
    waiting = [trial for trial in study.trials if trial.state.name == "WAITING"]
    assert len(waiting) == 2 and any(trial.user_attrs.get("baseline") for trial in waiting)


def test_killed_it_loses_what_was_in_flight_and_runs_that_again_once(tmp_path, clothseg):
    options = ("sweep=lr_batch", "sweep.n_trials=1", "sweep/pruner=none")
    process = start(clothseg, tmp_path, *options)
    wait_for(training(tmp_path, 0), process=process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert states(the_study(tmp_path)) == ["RUNNING"]
    done = sweep(clothseg, tmp_path, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    study = the_study(tmp_path)
    assert states(study) == ["FAIL", "COMPLETE"]
    # The lost one was the baseline, and so is the one that took its place.
    assert study.trials[1].params == study.trials[0].params and study.trials[1].user_attrs["baseline"]
    assert "was lost: its process was killed" in done.stdout
    _, children, _ = runs(tmp_path)
    assert [run.info.status for run in children] == ["KILLED", "FINISHED"]
    assert [row["remark"] for row in table(tmp_path)][0] == "baseline; its process was killed, run again as trial 1"


@pytest.mark.long
def test_interrupted_it_ends_its_trial_in_order_and_can_go_on(tmp_path, clothseg):
    process = start(clothseg, tmp_path, "sweep=lr_batch", "sweep.n_trials=2")
    wait_for(training(tmp_path, 0), process=process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in output, output
    study = the_study(tmp_path)
    assert states(study) == ["FAIL", "WAITING"] and study.trials[0].user_attrs["lost"] == "interrupted"
    parent, (child,), _ = runs(tmp_path)
    assert (parent.info.status, child.info.status) == ("KILLED", "KILLED")


def test_a_trial_whose_process_is_killed_fails_with_the_reason_and_the_sweep_goes_on(tmp_path, clothseg):
    process = start(clothseg, tmp_path, "sweep=lr_batch", "sweep.n_trials=2", "sweep/pruner=none")
    trial = wait_for(training(tmp_path, 0), process=process)
    # As the system does when memory runs out.
    psutil.Process(trial.user_attrs["worker"]["pid"]).kill()
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    study = the_study(tmp_path)
    assert states(study) == ["FAIL", "COMPLETE"]
    assert "when memory runs out" in study.trials[0].user_attrs["failure"]
    _, children, _ = runs(tmp_path)
    assert [run.info.status for run in children] == ["KILLED", "FINISHED"]


@pytest.mark.long
def test_a_grid_is_tried_once_each_baseline_first_and_a_trial_that_diverges_does_not_end_it(tmp_path, clothseg):
    space = ("optimizer.learning_rate=choice(0.001,1e38)", "batch_size=choice(64)")
    done = sweep(clothseg, tmp_path, "sweep=grid_lr_batch", *space)
    assert done.returncode == 0, done.stdout + done.stderr
    study = the_study(tmp_path)
    tried = [(trial.params["optimizer.learning_rate"], trial.params["batch_size"]) for trial in study.trials]
    assert tried == [(0.001, 64), (1e38, 64)]
    assert states(study) == ["COMPLETE", "FAIL"] and "DivergedError" in study.trials[1].user_attrs["failure"]
    _, children, _ = runs(tmp_path)
    assert [run.info.status for run in children] == ["FINISHED", "FAILED"]


@pytest.mark.long
def test_two_objectives_give_a_pareto_front_and_the_commands_for_it(tmp_path, clothseg):
    space = (
        "backbone=choice(mobilenetv2)",
        "image_size=choice([32,32],[64,64])",
        "sweep.baseline.backbone=mobilenetv2",
    )
    options = [option for option in TINY if not option.startswith(("image_size", "backbone="))]
    done = clothseg(
        "train", "-m", "sweep=multi", "sweep.n_trials=2", *space, "sweep.baseline.image_size='[64,64]'", *options,
        folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    study = the_study(tmp_path)
    assert states(study) == ["COMPLETE", "COMPLETE"]
    assert all(value > 0 for trial in study.trials for value in trial.values[1:])
    assert "Pareto front:" in done.stdout
    parent, children, client = runs(tmp_path)
    assert "pareto.trials" in parent.data.tags
    assert children[0].data.metrics["inference/milliseconds_per_photo"] == pytest.approx(study.trials[0].values[1])
    assert "figures/pareto_front.png" in [item.path for item in client.list_artifacts(parent.info.run_id, "figures")]


def test_two_processes_share_a_study_on_postgresql_and_leave_no_password(tmp_path, clothseg, new_postgres):
    postgres, tracked = new_postgres(), new_postgres()
    options = ("sweep=lr_batch", "sweep.n_trials=3", "sweep/pruner=none", "threads=1", f"sweep.storage={postgres}")
    tracking = {"MLFLOW_TRACKING_URI": tracked}
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    processes = [start(clothseg, folder, *options, **tracking) for folder in folders]
    outputs = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    study = the_study(tmp_path, storage=postgres)
    trials = [trial for trial in study.trials if "surplus" not in trial.user_attrs]
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3
    assert len({tuple(trial.params.values()) for trial in trials}) == 3
    assert len({trial.user_attrs["worker"]["pid"] for trial in trials}) == 2
    parent, children, _ = runs(tmp_path, store=tracked)
    assert len(children) == 3 and parent.info.status == "FINISHED"
    password = postgres.split(":")[2].split("@")[0]
    assert len(password) > 5
    kept = [path for folder in folders for path in (folder / "mlruns").rglob("*") if path.is_file()]
    assert len(kept) > 10 and not [path for path in kept if password.encode() in path.read_bytes()]
    shown = [*outputs, *(str(run.data.tags) + str(run.data.params) for run in [parent, *children])]
    assert not [text for text in shown if password in text]


@pytest.mark.parametrize(
    ("launcher", "module"),
    [
        pytest.param(("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"), "hydra_plugins.hydra_joblib_launcher",
                     id="joblib", marks=pytest.mark.long),
        pytest.param(("hydra/launcher=submitit_local", "sweep.n_jobs=2", "threads=1"),
                     "hydra_plugins.hydra_submitit_launcher", id="submitit", marks=pytest.mark.long),
        pytest.param(("hydra/launcher=ray", "sweep.n_jobs=2", "threads=1", "+hydra.launcher.ray.init.num_cpus=2",
                      "+hydra.launcher.ray.init.include_dashboard=false"),
                     "hydra_plugins.hydra_ray_launcher", id="ray", marks=pytest.mark.long),
    ],
)  # fmt: skip
def test_every_launcher_trains_trials(tmp_path, clothseg, launcher, module):
    pytest.importorskip(module)
    done = sweep(clothseg, tmp_path, "sweep=lr_batch", "sweep.n_trials=2", "sweep/pruner=none", *launcher)
    assert done.returncode == 0, done.stdout + done.stderr
    study = the_study(tmp_path)
    assert states(study) == ["COMPLETE", "COMPLETE"]
    _, children, _ = runs(tmp_path)
    assert len(children) == 2
    # Side by side: each in a process of its own, with its share of the cores.
    assert len({trial.user_attrs["worker"]["pid"] for trial in study.trials}) == 2
    first, second = study.trials
    assert first.datetime_start < second.datetime_complete and second.datetime_start < first.datetime_complete
    share = str(max(1, (os.cpu_count() or 1) // 2))
    assert {run.data.params["threads"] for run in children} <= {share, "1"}


@pytest.mark.long
def test_a_run_named_in_the_environment_is_the_parent_of_the_trials(tmp_path, clothseg):
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    outer = client.create_run(client.create_experiment("elsewhere"), run_name="outer")
    done = sweep(clothseg, tmp_path, "sweep=lr_batch", "sweep.n_trials=1", *PRUNED, MLFLOW_RUN_ID=outer.info.run_id)
    assert done.returncode == 0, done.stdout + done.stderr
    parent, children, _ = runs(tmp_path, experiment="elsewhere")
    assert parent.info.run_id == outer.info.run_id and len(children) == 1


@pytest.mark.parametrize(("place", "installed"), [("conf", False), ("clothseg/conf", True)])
def test_the_preset_goes_to_the_checkout_or_to_the_working_folder_of_an_installed_package(
    tmp_path, monkeypatch, place, installed
):
    from clothseg import entry
    from clothseg.sweeps.sweeper import Sweep

    # A checkout may have the name of the package.
    root = tmp_path / "clothseg"
    (root / place / "experiment").mkdir(parents=True)
    monkeypatch.setattr(entry, "__file__", str(root / "clothseg" / "entry.py"))
    monkeypatch.setattr(entry, "config_folder", lambda: root / place)
    sweep = Sweep.__new__(Sweep)
    sweep.presets = None
    folder, flags = sweep._preset_folder()
    assert (folder, flags) == ((Path("conf"), ["--config-dir", "conf"]) if installed else (root / place, []))
