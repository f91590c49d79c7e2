"""Taking up a training that was interrupted: which it is, and whether it can go on as what it was."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from filelock import FileLock, Timeout
from mlflow.entities import Run
from omegaconf import DictConfig, OmegaConf

from clothseg import entry
from clothseg.assemble import Data
from clothseg.errors import UserError
from clothseg.tracking.find import file_of, unfinished
from clothseg.tracking.outbox import FOLDER, send_if_free
from clothseg.training.checkpoints import STATE, epochs_kept

# Options that say where and how a training runs, or what is done after it.
HARMLESS = (
    "threads",
    "dataset.root",
    "divergence",
    "prepare.cache",
    "prepare.workers",
    "tracking.figure_photos",
    "tracking.figures",
    "tracking.log_model",
    "tracking.patience",
    "evaluation",
    "keep",
    "register",
    "output",
)
# Options of the command that are not of the training.
_OF_THE_COMMAND = ("sweep", "resume")


@dataclass(frozen=True)
class Interrupted:
    """A training that goes on.

    Attributes:
        run_id: of its MLflow run.
        name: of the run.
        folder: its checkpoints.
        cfg: its configuration, with the harmless changes.
        command: all overrides that give this configuration.
        tags: of the run.
        fingerprint: of its prepared data.
        split: as JSON.
    """

    run_id: str
    name: str
    folder: Path
    cfg: DictConfig
    command: Sequence[str]
    tags: Mapping[str, str]
    fingerprint: str
    split: str

    def check_data(self, data: Data) -> None:
        """Raise `UserError` if the photos, their labels or the split are not what they were."""
        if data.final.fingerprint != self.fingerprint or data.parts.to_json() != self.split:
            raise UserError(
                f"resume={self.run_id}: the photos, their labels or the split of dataset {data.final.name} have "
                "changed since the training began; bring them back, or train anew"
            )

    def check_precision(self, policy: str) -> None:
        """Raise `UserError` if the training computed in another precision."""
        if policy != self.tags["precision"]:
            raise UserError(
                f"resume={self.run_id}: the training computed in {self.tags['precision']}, and this machine would in "
                f"{policy}; go on where it began"
            )


def with_its_command(arguments: list[str]) -> list[str]:
    """The arguments of a command that takes up a training and says more: those of the training itself come before them.

    Raises:
        UserError: there is no such training.
    """
    given = next((argument[len("resume=") :] for argument in arguments if argument.startswith("resume=")), "null")
    if given == "null" or all(argument.startswith(("resume=", "-")) for argument in arguments):
        return arguments
    run = unfinished(given)
    together = [*_command(run), *(argument for argument in arguments if not argument.startswith("resume="))]
    # Of two that say something else about one option the later counts.
    options = {argument if argument.startswith("-") else argument.partition("=")[0]: argument for argument in together}
    return [*options.values(), f"resume={run.info.run_id}"]


def taken_up(given: str, wanted: DictConfig | None, overrides: Sequence[str]) -> Interrupted:
    """The training that was interrupted.

    Args:
        given: the id of its MLflow run, or `last`, the latest training that did not come to its end.
        wanted: its configuration with changes; None for none. Only options that change nothing about the training may
            be other than they were, and the number of epochs that are still to come.
        overrides: that give this configuration, where there is one.

    Raises:
        UserError: there is none, it ended, its state is lost, or it would be another training.
    """
    run = unfinished(given)
    tags, run_id = dict(run.data.tags), run.info.run_id
    folder = Path(tags["checkpoints"])
    # What the store did not take before the interruption is needed below.
    send_if_free(folder.parent / FOLDER)
    run = mlflow.get_run(run_id)
    if not (folder / STATE).is_file():
        raise UserError(
            f"resume={given}: there is no state in {folder}; run {run_id} was interrupted before its first epoch "
            "ended, or on a machine with other folders; train anew, or go on there"
        )
    try:
        saved = entry.parsed(file_of(run_id, "config/config.yaml"))
    except UserError as error:
        raise UserError(f"resume={given} has a configuration that cannot be read: {error}") from error
    assert run.inputs is not None
    command: Sequence[str] = _command(run)
    if wanted is not None:
        command = overrides
        saved = _with_changes(given, saved, wanted, epochs_kept(folder / STATE))
    for key in _OF_THE_COMMAND:
        saved[key] = None
    fingerprint = next(tag.value for tag in run.inputs.dataset_inputs[0].tags if tag.key == "fingerprint")
    split = file_of(run_id, "data/split.json")
    return Interrupted(run_id, run.info.run_name, folder, saved, command, tags, fingerprint, split)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """The checkpoints in a folder are this process's own meanwhile.

    Raises:
        UserError: another process has them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # The lock is the system's, and ends with the process, however that ends.
    lock = FileLock(folder / "in_use.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"the training in {folder} is still going on, in another process; wait, or end that") from None
    try:
        yield
    finally:
        lock.release()


def _command(run: Run) -> list[str]:
    """The overrides that gave a run."""
    return shlex.split(run.data.tags["command"])[3:]


def _with_changes(given: str, saved: DictConfig, wanted: DictConfig, done: Mapping[str, int]) -> DictConfig:
    """The configuration that a training began with, and of another one what may be changed."""
    before, after = _options(saved), _options(wanted)
    changed = [key for key in dict.fromkeys([*before, *after]) if before.get(key) != after.get(key)]
    for key in changed:
        if key.split(".")[0] in HARMLESS or key in HARMLESS:
            continue
        problem = _problem(key, before.get(key), after.get(key), saved, done)
        if problem is not None:
            others = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
            raise UserError(
                f"resume={given}: {key}={after.get(key)} was {before.get(key)} when the training began{others}; "
                f"{problem}"
            )
    for key in changed:
        OmegaConf.update(saved, key, after.get(key), merge=False)
    return saved


def _problem(key: str, before: Any, after: Any, saved: DictConfig, done: Mapping[str, int]) -> str | None:
    """Why an option cannot be changed in the midst of a training, if so."""
    parts = key.split(".")
    if parts[:2] != ["schedule", "phases"] or parts[3:] != ["epochs"]:
        return "it goes on as it was, or another is trained"
    phases = list(saved.schedule.phases)
    phase, last = parts[2], list(done)[-1]
    if phase not in phases or phases.index(phase) < phases.index(last):
        return f"phase {phase} is over"
    if not str(saved.learning_rate._target_).endswith(".constant") and (
        phase in done or saved.schedule.learning_rate_over == "training"
    ):
        return "the learning rate, which follows the number of epochs, would have been another from the beginning"
    if not isinstance(after, int) or after < done.get(phase, 0):
        return f"{done.get(phase, 0)} epochs of phase {phase} are done"
    return None


def _options(cfg: DictConfig) -> dict[str, Any]:
    flat = entry.flatten(cfg)
    return {key: value for key, value in flat.items() if key.split(".")[0] not in _OF_THE_COMMAND}
