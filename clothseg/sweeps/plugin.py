"""What Hydra has to know of sweeps: a sweeper and a launcher, and the options they take.

Hydra imports this at every start, so everything heavy is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_optuna_sweeper.config import OptunaSweeperConf
from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper
from omegaconf import MISSING, DictConfig


@dataclass
class StudySweeperConf(OptunaSweeperConf):
    """The official sweeper's options, and what a study needs besides."""

    _target_: str = "clothseg.sweeps.plugin.StudySweeper"
    n_jobs: int | None = None  # type: ignore[assignment]
    pruner: Any = None
    objectives: list[str] = MISSING
    baseline: dict[str, Any] | None = None
    max_failures: int = MISSING
    grace_period: int = MISSING
    presets: str | None = None


@dataclass
class WorkersLauncherConf:
    """Options of `WorkersLauncher`."""

    _target_: str = "clothseg.sweeps.plugin.WorkersLauncher"
    # Trials side by side; the cores are divided between them.
    n_jobs: int = 1
    # Trials that a process trains before it is replaced. auto: 1 where there is a GPU, whose memory a process keeps;
    # else 10, as TensorFlow keeps some 200 MB of every training.
    jobs_per_process: Any = "auto"
    defaults: list[Any] = field(default_factory=list)


class StudySweeper(OptunaSweeper):
    """The official Optuna sweeper with a study that lasts, prunes, and is compared in MLflow."""

    def __init__(self, **options: Any) -> None:
        # Not the official constructor: it makes one sampler for the whole sweep, with one seed.
        from clothseg.sweeps.sweeper import Sweep

        self.sweeper = Sweep(**options)


class WorkersLauncher(Launcher):
    """Runs jobs in worker processes, which outlive a job and which a dying job does not take the sweep with.

    Args:
        n_jobs: how many.
        jobs_per_process: after how many a process is replaced, or "auto".
    """

    def __init__(self, n_jobs: int, jobs_per_process: int | str) -> None:
        self.n_jobs, self.jobs_per_process = n_jobs, jobs_per_process

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from clothseg.sweeps.workers import Workers

        self.workers = Workers(
            hydra_context, task_function, config, count=self.n_jobs, jobs_per_process=self.jobs_per_process
        )

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        with self.workers as workers:
            return [
                future.result()
                for future in [
                    workers.submit(list(overrides), initial_job_idx + place)
                    for place, overrides in enumerate(job_overrides)
                ]
            ]


def register() -> None:
    """Tells Hydra of both. They are registered by hand so that a checkout works without being installed."""
    for clazz in (StudySweeper, WorkersLauncher):
        Plugins.instance().register(clazz)
    store = ConfigStore.instance()
    store.store(group="hydra/sweeper", name="study_options", node=StudySweeperConf, provider="clothseg", replace=True)
    store.store(group="hydra/launcher", name="workers", node=WorkersLauncherConf, provider="clothseg", replace=True)
