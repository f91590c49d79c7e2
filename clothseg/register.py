"""`python -m clothseg.register`: a trained run as a version of a registered model, and the champion if it is better."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from clothseg import compare, entry, trained
from clothseg.settings import RegisterSettings, check

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from clothseg.tracking.registry import RegisteredModel

log = logging.getLogger(__name__)


def main(cfg: DictConfig) -> None:
    """Registers the run that `cfg` names. It takes the alias over where a comparison calls it better."""
    settings: RegisterSettings = check(cfg, RegisterSettings)

    from clothseg.tracking.find import find
    from clothseg.tracking.registry import RegisteredModel

    found = find(settings.run)
    model = RegisteredModel(settings.name)
    version = model.version_of(found)
    decision = _decide(model, version, settings)
    if decision.takes_over:
        model.crown(version)
    told = f"{settings.name} version {version.version} is {'' if decision.takes_over else 'not '}champion"
    tags = {"register.version": f"{settings.name}/{version.version}", "champion.decision": f"{told}: {decision.reason}"}
    if decision.against is not None:
        tags["champion.against"] = decision.against
    model.note(version, tags | decision.difference)
    log.info("%s: %s", told, decision.reason)


@dataclass(frozen=True)
class _Decision:
    """Whether a version becomes the champion.

    Attributes:
        takes_over: whether it does.
        reason: why, in words.
        against: the version that it was to be compared with, NAME/VERSION; None where there was none.
        difference: what was measured, as tags.
    """

    takes_over: bool
    reason: str
    against: str | None
    difference: dict[str, str]


def _decide(model: RegisteredModel, version: ModelVersion, settings: RegisterSettings) -> _Decision:
    champion = model.champion()
    if champion is None:
        return _Decision(True, "there was none", None, {})
    # Some stores give it as a number, some as a text.
    if int(champion.version) == int(version.version):
        return _Decision(True, "it is already", None, {})
    against = f"{model.name}/{champion.version}"
    names = [f"models:/{model.name}/{one.version}" for one in (champion, version)]
    try:
        trainings = trained.opened_together(names, weights=settings.weights)
        if len(trained.by_configuration(trainings)) == 1:
            reason = f"version {champion.version} has the same configuration; they differ by their seeds at most"
            return _Decision(False, reason, against, {})
        comparison = compare.compared(trainings, settings)
    except Exception as error:
        # A training that has ended is not undone because of what it is compared with, whatever that lacks.
        reason = entry.told(error) or f"{type(error).__name__}: {' '.join(str(error).split())}"
        return _Decision(False, f"it cannot be compared with version {champion.version}: {reason}", against, {})
    score = trainings[1].settings.best_metric.removeprefix("val/")
    found = comparison.difference(score, 1)
    better = found.real and found.value > 0
    interval = f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
    reason = f"{score} {interval} against version {champion.version}{'' if better else ', not better'}"
    return _Decision(better, reason, against, {"champion.difference": f"{score} {interval}"})


if __name__ == "__main__":
    entry.run(main, config_name="register")
