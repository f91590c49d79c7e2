"""A training opened again, from what was kept of it, without knowing how it was trained."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from clothseg import assemble
from clothseg.errors import UserError
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
        class_names: one per class that the network tells apart.
        weights: file of the kept weights.
    """

    found: Found
    cfg: DictConfig
    settings: TrainSettings
    class_names: tuple[str, ...]
    weights: Path

    @property
    def size(self) -> assemble.Size:
        """Height and width that the network was trained for last."""
        return assemble.sizes(self.settings)[-1]

    def part(self, name: Literal["train", "validation", "test"]) -> tuple[str, ...]:
        """Names of the photos of a part of its split."""
        return tuple(json.loads(Path(self.cfg.splitting.file).read_text(encoding="utf-8"))[name])

    def data(self, *, dataset: Mapping[str, Any]) -> assemble.Data:
        """The data that it was trained and validated on, in the same split.

        Args:
            dataset: options of the data set that have another value now, such as `root`.

        Raises:
            UserError: it cannot be had, or has other photos now.
        """
        cfg = OmegaConf.merge(self.cfg, {"dataset": dict(dataset)})
        return assemble.data(cfg, self.settings)

    def model(self, *, size: assemble.Size) -> keras.Model:
        """The network with its weights, photos float32 (batch, *size, 3) in 0..255 to logits.

        Args:
            size: height and width of the photos that it is for. A network has the same weights at every size.
        """
        network = assemble.network(self.cfg, self.settings, classes=len(self.class_names), size=size)
        network.model.load_weights(self.weights)
        return network.model


def opened(found: Found, *, weights: Literal["last", "best"] | None) -> Trained:
    """What is kept of a training.

    Args:
        found: it.
        weights: those of the last or of the best epoch; None for those that its configuration says it keeps.

    Raises:
        UserError: something is missing, or it was made by a version whose configuration this one does not take.
    """
    cfg = OmegaConf.create(found.file("config/config.yaml").read_text(encoding="utf-8"))
    split = found.file("data/split.json")
    try:
        cfg.sweep = None
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
    with found.file(CLASSES).open(encoding="utf-8", newline="") as file:
        class_names = tuple(row["name"] for row in csv.DictReader(file))
    kept = found.file(f"weights/{weights or settings.keep}.weights.h5")
    return Trained(found, cfg, settings, class_names, kept)
