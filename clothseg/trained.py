"""A training opened again, from what was kept of it, without knowing how it was trained."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from clothseg import assemble, entry
from clothseg.data.split import parts_of
from clothseg.errors import UserError
from clothseg.models.weight_files import check_hdf5
from clothseg.settings import TrainSettings, check

if TYPE_CHECKING:
    import keras

    from clothseg.tracking.find import Found

CLASSES = "tables/classes.csv"


@dataclass(frozen=True)
class Trained:
    """What a training left.

    Attributes:
        found: where it is kept.
        cfg: its configuration, with its own split.
        settings: the same, checked.
        options: every option by its dotted name, as it was given in training.
        class_names: one per class that the network tells apart.
        weights: file of the kept weights.
    """

    found: Found
    cfg: DictConfig
    settings: TrainSettings
    options: Mapping[str, Any]
    class_names: tuple[str, ...]
    weights: Path

    @property
    def size(self) -> assemble.Size:
        """Height and width that the network was trained for last."""
        return assemble.sizes(self.settings)[-1]

    def part(self, name: Literal["train", "validation", "test"]) -> tuple[str, ...]:
        """Names of the photos of a part of its split."""
        return tuple(parts_of(Path(self.cfg.splitting.file))[name])

    @property
    def groups(self) -> tuple[Mapping[str, Sequence[str] | None] | None, str | None]:
        """The groups that its classes are, and the one that takes what no group lists."""
        return self.settings.label_groups.groups, self.settings.label_groups.rest

    def data(self, *, root: str | None) -> assemble.Data:
        """The data that it was trained and validated on, in the same split.

        Args:
            root: folder of the data set where it is now; None for where it was found in training.

        Raises:
            UserError: it cannot be had, or has other photos now.
        """
        cfg = self.cfg.copy()
        if root is not None:
            cfg.dataset.root = root
        return assemble.data(cfg, self.settings)

    def load_keras(self, *, precision: str | None) -> None:
        """Loads Keras with the seed of the training, on every core of this machine.

        Args:
            precision: that is to be computed in; None for that of the training.
        """
        from clothseg.training import backend

        options = self.settings
        precision = precision or options.precision
        backend.load(seed=options.seed, deterministic=options.deterministic, threads=None, precision=precision)

    def model(self, *, size: assemble.Size, precision: str | None) -> keras.Model:
        """The network with its weights, photos float32 (batch, *size, 3) in 0..255 to logits.

        Args:
            size: height and width of the photos that it is for. A network has the same weights at every size.
            precision: that it computes in; None for that of its training.
        """
        from clothseg.training.precision import set_policy

        set_policy(precision or self.settings.precision)
        network = assemble.network(self.cfg, self.settings, classes=len(self.class_names), size=size)
        try:
            check_hdf5(self.weights)
            network.model.load_weights(self.weights)
        except Exception as error:  # of many types for a file that is damaged or of another network
            reason = str(error).partition(". ")[0]
            raise UserError(
                f"run={self.found.given} has {self.weights.name} that do not fit its network or are damaged: {reason}"
            ) from error
        return network.model


def opened(found: Found, *, weights: Literal["last", "best"] | None) -> Trained:
    """What is kept of a training.

    Args:
        found: it.
        weights: those of the last or of the best epoch; None for those that its configuration says it keeps.

    Raises:
        UserError: something is missing, or it was made by a version whose configuration this one does not take.
    """
    config, split = found.file("config/config.yaml"), found.file("data/split.json")
    try:
        cfg = entry.parsed(_text(config))
        given = entry.flatten(cfg)
        # What the command was beside the training.
        cfg.sweep = cfg.folds = cfg.register = cfg.output = cfg.resume = None
        cfg.splitting.file = str(split)
        # They come from the training.
        cfg.backbone.weights = None
        settings: TrainSettings = check(cfg, TrainSettings)
    except (OmegaConfBaseException, UserError) as error:
        told = str(error).partition("\n")[0]
        raise UserError(
            f"run={found.given} has a configuration that this version of clothseg does not take ({told}); "
            f"use the version that made it: commit {found.commit}"
        ) from None
    rows = list(csv.DictReader(io.StringIO(_text(found.file(CLASSES)), newline="")))
    class_names = tuple(row["name"] for row in rows if row.get("name"))
    if len(rows) < 2 or len(class_names) != len(rows):
        raise UserError(f"run={found.given} has a {CLASSES} without two or more classes in a column `name`")
    kept = found.file(f"weights/{weights or settings.keep}.weights.h5")
    return Trained(found, cfg, settings, given, class_names, kept)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} cannot be read as text: {error}") from error


def opened_together(names: Sequence[str], *, weights: Literal["last", "best"] | None) -> list[Trained]:
    """Trainings that go together: their classes are the same, made of the same classes of the data.

    Args:
        names: what they are called; see `find`.
        weights: as of `opened`.

    Raises:
        UserError: one cannot be had, or has other classes than the first.
    """
    from clothseg.tracking.find import find

    trainings = [opened(find(name), weights=weights) for name in names]
    first = trainings[0]
    for other in trainings[1:]:
        if other.class_names != first.class_names or other.groups != first.groups:
            raise UserError(
                f"run={other.found.given} has {len(other.class_names)} classes and {first.found.given} "
                f"{len(first.class_names)}, or others; only networks with the same classes go together"
            )
    return trainings


def check_different(trainings: Sequence[Trained]) -> None:
    """Refuses to set a training against itself.

    Raises:
        UserError: names two names of one training.
    """
    known: dict[str, str] = {}
    for training in trainings:
        found = training.found
        key = found.run_id or str(found.folder)
        if key in known:
            raise UserError(f"runs has {known[key]} and {found.given}, which are one run; name different ones")
        known[key] = found.given


# What may differ between trainings of one configuration: the seed, and where and how something was run.
_NOT_CONFIGURATION = (
    "seed",
    "folds",
    "register",
    "resume",
    "output",
    "tracking",
    "threads",
    "dataset.root",
    "prepare.cache",
    "prepare.workers",
    "splitting.file",
    "sweep",
)


def configuration(training: Trained) -> dict[str, Any]:
    """Every option of a training by its dotted name, without its seed and what says nothing about its outcome."""
    return {
        key: value
        for key, value in training.options.items()
        if not any(key == name or key.startswith(f"{name}.") for name in _NOT_CONFIGURATION)
    }


def by_configuration(trainings: Sequence[Trained]) -> list[list[int]]:
    """Places of the trainings, those of one configuration together, in the order of the first of each."""
    groups: list[tuple[dict[str, Any], list[int]]] = []
    for place, training in enumerate(trainings):
        own = configuration(training)
        for known, places in groups:
            if known == own:
                places.append(place)
                break
        else:
            groups.append((own, [place]))
    return [places for _, places in groups]
