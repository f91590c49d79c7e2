"""What is kept of a training while it goes on: weights to use, and a state to go on from.

Nothing is unpickled: what is kept are NPZ files of plain arrays and, at the end, Keras's HDF5 files of weights.
Importing this module does not load Keras.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clothseg.errors import UserError
from clothseg.training.history import Epoch, History

if TYPE_CHECKING:
    import keras

    from clothseg.training.phases import Phase

STATE = "state.npz"


@dataclass(frozen=True)
class State:
    """Where a training stands after an epoch: what it needs to go on as if it had not been interrupted.

    Augmentation and the order of examples depend on the seed, the pass and the example alone, so there is no state of
    random numbers but that of layers, which is among the weights.

    Attributes:
        epochs: all so far.
        weights: every variable of the network that was trained last, those that are trained as training left them, not
            their averages.
        optimizer: every variable of the optimizer of that phase.
        rollbacks, rate: of the `History`.
    """

    epochs: tuple[Epoch, ...]
    weights: tuple[np.ndarray, ...]
    optimizer: tuple[np.ndarray, ...]
    rollbacks: int
    rate: float

    @classmethod
    def of(cls, history: History, model: keras.Model, *, trained: Sequence[np.ndarray]) -> State:
        """The state of a compiled model.

        Args:
            history: of its training.
            model: it.
            trained: of every trainable variable the value that training goes on from.
        """
        values = {id(variable): value for variable, value in zip(model.trainable_variables, trained, strict=True)}
        weights = [values[id(one)] if id(one) in values else _value(one) for one in model.variables]
        optimizer = tuple(_value(one) for one in model.optimizer.variables)
        return cls(tuple(history.epochs), tuple(weights), optimizer, history.rollbacks, history.rate)


def restore(state: State, model: keras.Model) -> None:
    """Gives a compiled model, whose optimizer is built, the values that it had, but for its learning rate.

    Raises:
        UserError: it is another network, or another optimizer.
    """
    for what, variables, values in (
        ("network", model.variables, state.weights),
        ("optimizer", model.optimizer.variables, state.optimizer),
    ):
        if [tuple(one.shape) for one in variables] != [value.shape for value in values]:
            raise UserError(
                f"the state has {len(values)} variables of the {what}, and the one made from the configuration has "
                f"{len(variables)}, or of other shapes; use the version of clothseg and Keras that began the training"
            )
        for variable, value in zip(variables, values, strict=True):
            # It is a variable where it is constant.
            if variable.name != "learning_rate":
                variable.assign(value)


class Checkpoints:
    """Keeps the state of a training, and the weights of its last and of its best epoch, in a folder.

    Every file is written aside, brought to the disk and renamed: what has its name is complete, and what was there
    before survives a crash. Called with an epoch, as a listener for `fit_phases`, it keeps the weights.

    Args:
        folder: gets `state.npz`, `last.npz` and `best.npz`.
        metric: the score by which epochs are compared, higher is better.
        begun: `time.monotonic()` at which the training began, or would have without its interruptions.

    Attributes:
        saved: the epoch whose weights "last" and "best" are; empty before the first was written.

    Raises:
        UserError: by all that writes; the disk is full, or otherwise refuses.
    """

    def __init__(self, folder: Path, *, metric: str, begun: float) -> None:
        self.folder, self.metric, self.begun = folder, metric, begun
        self.saved: dict[str, Epoch] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, epoch: Epoch, history: History) -> None:
        # Arrays: as HDF5, Keras takes a second or so for a network of 400 layers, whatever their size.
        with self._aside(self._arrays("last")) as aside:
            np.savez(aside, *(_value(variable) for variable in epoch.phase.network.model.weights))
        self.saved["last"] = epoch
        best = history.best(self.metric)
        assert best is not None
        if best is epoch:
            with self._aside(self._arrays("best")) as aside:
                shutil.copyfile(self._arrays("last"), aside)
        self.saved["best"] = best

    def load(self, which: str, model: keras.Model) -> None:
        """Gives a model, of any size, the weights of "last" or "best"."""
        with np.load(self._arrays(which), allow_pickle=False) as file:
            model.set_weights([file[f"arr_{place}"] for place in range(len(file.files))])

    def export(self, model: keras.Model) -> None:
        """Writes the weights of the last and the best epoch as Keras's files; the model is left with either."""
        for which in self.saved:
            self.load(which, model)
            self.write(which, model)

    def write(self, which: str, model: keras.Model) -> None:
        """Writes the present weights of a model as Keras's `WHICH.weights.h5`."""
        file = _InMemory()
        model.save_weights(file)
        with self._aside(self.folder / f"{which}.weights.h5") as aside:
            aside.write_bytes(file.getbuffer())

    def keep(self, state: State) -> None:
        """Writes the state, in place of the one before."""
        about = {
            "epochs": [[epoch.number, epoch.phase.name, epoch.scores] for epoch in state.epochs],
            "seconds": time.monotonic() - self.begun,
            "rollbacks": state.rollbacks,
            "rate": state.rate,
        }
        arrays: dict[str, Any] = {f"weights_{place}": value for place, value in enumerate(state.weights)}
        arrays |= {f"optimizer_{place}": value for place, value in enumerate(state.optimizer)}
        arrays |= {f"confusion_{epoch.number}": epoch.confusion for epoch in state.epochs if epoch.confusion.size}
        with self._aside(self.folder / STATE) as aside:
            np.savez(
                aside,
                about=np.frombuffer(json.dumps(about).encode(), np.uint8),
                **arrays,
            )

    def clear(self) -> None:
        """Removes everything, once it is kept elsewhere or not wanted."""
        for path in (self.folder / STATE, *map(self._arrays, ("last", "best")), *self.files()):
            path.unlink(missing_ok=True)

    def files(self) -> list[Path]:
        """Keras's files of weights."""
        return sorted(path for path in self.folder.glob("*.weights.h5") if ".partial." not in path.name)

    def _arrays(self, which: str) -> Path:
        return self.folder / f"{which}.npz"

    @contextmanager
    def _aside(self, path: Path) -> Iterator[Path]:
        aside = path.with_name(path.name.replace(".", ".partial.", 1))
        try:
            yield aside
            _flush(aside)
            os.replace(aside, path)
            _flush(path.parent)
        except OSError as error:
            # What is half written may be what fills the disk.
            aside.unlink(missing_ok=True)
            raise UserError(
                f"{path} cannot be written ({error.strerror or error}); what was kept before is as it was, and "
                "resume=RUN goes on from there once there is room"
            ) from error


def read_state(path: Path, phases: Callable[[str], Phase]) -> State:
    """A state that `Checkpoints` kept.

    Args:
        path: of the file.
        phases: gives the phase of a name.

    Raises:
        UserError: it is no such file.
    """
    about, arrays = _read(path)
    epochs = tuple(
        Epoch(number, phases(name), scores, arrays.get(f"confusion_{number}", np.zeros((0, 0), np.int64)))
        for number, name, scores in about["epochs"]
    )
    weights, optimizer = (
        tuple(arrays[f"{kind}{place}"] for place in range(sum(name.startswith(kind) for name in arrays)))
        for kind in ("weights_", "optimizer_")
    )
    return State(epochs, weights, optimizer, about["rollbacks"], about["rate"])


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return json.loads(bytes(arrays.pop("about"))), arrays
    except Exception as error:  # a damaged archive makes zipfile and NumPy raise nearly anything
        raise UserError(f"{path} is no state of a training ({' '.join(str(error).split())}); train anew") from error


def epochs_kept(path: Path) -> dict[str, int]:
    """How many epochs of every phase are done, in the order of the phases, by a state that `Checkpoints` kept.

    Raises:
        UserError: it is no such file.
    """
    done: dict[str, int] = {}
    for _, name, _ in _read(path)[0]["epochs"]:
        done[name] = done.get(name, 0) + 1
    return done


def seconds_kept(path: Path) -> float:
    """How long a training had taken when its state was kept.

    Raises:
        UserError: it is no such file.
    """
    return _read(path)[0]["seconds"]


class _InMemory(io.BytesIO):
    """A file of weights as Keras takes it: HDF5 itself, where a disk is full, ends the process."""

    def __str__(self) -> str:
        return "in_memory.weights.h5"


def _value(variable: keras.Variable) -> np.ndarray:
    from keras import ops

    # Through a tensor, since on several devices a variable is one on each.
    return np.array(ops.convert_to_tensor(variable))


def _flush(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
