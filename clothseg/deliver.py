"""`python -m clothseg.deliver`: give the tracking server what it did not take while it was away."""

from __future__ import annotations

import logging
from pathlib import Path

from filelock import Timeout
from omegaconf import DictConfig

from clothseg import entry
from clothseg.errors import UserError
from clothseg.settings import DeliverSettings, check

log = logging.getLogger(__name__)

# Where Hydra puts the folders of runs.
USUAL = ("outputs", "multirun")


def main(cfg: DictConfig) -> None:
    """Delivers what trainings left below the folder that `cfg` names.

    Raises:
        UserError: the folder does not exist, what it holds is for another store, or the store is still away.
    """
    settings: DeliverSettings = check(cfg, DeliverSettings)
    from clothseg.tracking.outbox import outboxes, run_of, send, waiting
    from clothseg.tracking.store import quiet, store_address

    quiet()
    folders = [Path(name) for name in USUAL] if settings.folder is None else [Path(settings.folder).expanduser()]
    if settings.folder is not None and not folders[0].is_dir():
        raise UserError(f"folder={settings.folder} does not exist; null looks into {' and '.join(USUAL)}")
    found = [outbox for folder in folders for outbox in outboxes(folder)]
    if not found:
        log.info("nothing is left to deliver in %s", " and ".join(map(str, folders)))
    left = []
    for outbox in found:
        of, number = run_of(outbox), waiting(outbox)
        if of["store"] != store_address():
            raise UserError(
                f"{outbox} is of run {of['run_id']} in {of['store']}, and this is {store_address()}; "
                f"MLFLOW_TRACKING_URI={of['store']} delivers it"
            )
        try:
            left.append(send(outbox, settings.patience))
        except Timeout:
            log.info("run %s is still going on and delivers by itself: %s", of["run_id"], outbox)
            continue
        log.info("run %s: %d of %d delivered from %s", of["run_id"], number - left[-1], number, outbox)
    if any(left):
        raise UserError(
            f"{store_address()} is still away; the {sum(left)} left are kept, the same command delivers them"
        )


if __name__ == "__main__":
    entry.run(main, config_name="deliver")
