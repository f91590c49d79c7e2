"""`python -m clothseg.train`, which also tells what happens in lines of JSON, as the article's script here does."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable

from benchmarks.article_script import tell
from benchmarks.watch import Logging, Peak, readings
from clothseg import entry, train
from clothseg.sweeps import plugin


def main() -> None:
    """Trains by Hydra's overrides and by options of its own.

    `--first-step` ends after a step, `--untracked` neither logs nor keeps anything, `--one-batch` trains on one batch,
    `--watch` tells of memory, files, threads and logging after every epoch.
    """
    own = {option: option in sys.argv for option in ("--first-step", "--untracked", "--one-batch", "--watch")}
    sys.argv = [each for each in sys.argv if each not in own]
    patch(**{option[2:].replace("-", "_"): given for option, given in own.items()})
    peak = Peak() if own["--watch"] else None
    plugin.register()
    entry.run(train.main, config_name="train", arguments=train._arguments)
    more = {} if peak is None else {"peak": peak.megabytes()}
    tell("end", megabytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, **more)


def patch(*, first_step: bool, untracked: bool, one_batch: bool, watch: bool) -> None:
    """Hooks into the training once Keras is loaded, which has to stay as late as it is."""
    from clothseg import assemble
    from clothseg.training import backend

    for name in ("data", "networks"):
        setattr(assemble, name, _told(name, getattr(assemble, name)))
    load = backend.load

    def loaded(**options: object) -> None:
        load(**options)
        tell("keras")
        from clothseg.training.phases import _Recorder

        logging = Logging() if watch else None
        begin, batch, end = _Recorder.on_epoch_begin, _Recorder.on_train_batch_end, _Recorder.on_epoch_end

        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 0:
                tell("fit")
            self.took = time.perf_counter()
            begin(self, epoch, logs)

        def on_train_batch_end(self, step, logs=None):
            if first_step:
                tell("first step")
                os._exit(0)
            batch(self, step, logs)

        def on_epoch_end(self, epoch, logs=None):
            took = time.perf_counter() - self.took
            end(self, epoch, logs)
            more = {} if logging is None else {**logging.seconds(), **readings()}
            tell("epoch", phase=self.phase.name, took=took, accuracy=float(logs["val_accuracy"]), **more)

        _Recorder.on_epoch_begin, _Recorder.on_train_batch_end = on_epoch_begin, on_train_batch_end
        _Recorder.on_epoch_end = on_epoch_end
        if untracked:
            without_tracking()
        if one_batch:
            from clothseg.assemble import Batches

            training = Batches.training
            Batches.training = lambda self, phase: training(self, phase).take(1).cache().repeat()

    backend.load = loaded


def _told(name: str, function: Callable) -> Callable:
    """A function that tells when it is done."""

    def wrapped(*arguments: object, **options: object) -> object:
        made = function(*arguments, **options)
        tell(name)
        return made

    return wrapped


def without_tracking() -> None:
    """Nothing is logged, measured of the machine, drawn or kept: what a training costs by itself.

    Its run is made in the store, before the training begins.
    """
    from clothseg.tracking.report import Report
    from clothseg.tracking.run import TrackedRun, _SystemMetrics
    from clothseg.training.checkpoints import Checkpoints

    def nothing(*arguments: object, **options: object) -> None:
        return None

    def remember(self, epoch, history):
        self.saved = {"last": epoch, "best": epoch}

    for name in ("data", "samples", "after_epoch", "after_phase", "conclude"):
        setattr(Report, name, nothing)
    Checkpoints.keep, Checkpoints.__call__ = nothing, remember
    TrackedRun._put = nothing
    _SystemMetrics.start = _SystemMetrics.finish = nothing


if __name__ == "__main__":
    main()
