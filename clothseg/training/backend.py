"""Loading the Keras backend, and setting it up for one training."""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from clothseg import machine
from clothseg.errors import UserError

log = logging.getLogger(__name__)
_chosen: dict[str, bool] = {}  # whether it was left to us to use oneDNN, once TensorFlow is loaded
# What TensorFlow says of itself on every machine, through the C library and before its log level counts: that oneDNN
# is on, which instructions it was built for, and that there is no GPU, which reads like an error.
_CHATTER = re.compile(
    r"WARNING: All log messages before absl::InitializeLog|[IWE]\d{4} .*\b"
    r"(port|cudart_stub|cuda_platform|cuda_diagnostics|cuda_executor|cpu_feature_guard|computation_placer|cuda_\w+)"
    r"\.cc:\d+\]|"
    r"To enable the following instructions: .*rebuild TensorFlow"
)


def load(*, seed: int, deterministic: bool, threads: int | None, precision: str) -> None:
    """Imports Keras and its backend without their chatter, and seeds everything that draws random numbers.

    Args:
        seed: for Python, NumPy and the backend.
        deterministic: whether TensorFlow has to compute the same numbers every time (JAX on a CPU does).
        threads: of the processor that TensorFlow computes with; None for one on every core.
        precision: that it is to compute in, as in the configuration.

    Raises:
        UserError: this process has computed with another number of threads.
    """
    _choose_onednn(precision)
    with _without_chatter(), _without("sklearn"):
        import keras

        # A sweep trains several networks in one process: each begins as if it were the first.
        keras.utils.clear_session()
        keras.utils.set_random_seed(seed)
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            logging.getLogger("tensorflow").addFilter(_not_retracing)

            if threads is not None:
                _set_threads(tf.config.threading, threads)
            # Looking for GPUs belongs to what TensorFlow comments on.
            tf.config.list_physical_devices()
            if deterministic:
                tf.config.experimental.enable_op_determinism()


@contextmanager
def _without(package: str) -> Iterator[None]:
    """As if a package were not installed, unless it is imported already.

    Keras wraps scikit-learn where it finds it, whose import is a fifth of Keras's and TensorFlow's; its wrappers
    are not what anybody trains with here.
    """
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]


def _choose_onednn(precision: str) -> None:
    # TensorFlow by itself uses oneDNN only where there is AVX-512 VNNI; with AVX2 alone float32 is faster too, by
    # a sixth to a third of a step. 16 bits, for which there are no instructions there, take several times as long.
    wanted = "1" if precision in ("auto", "float32") or machine.has_bfloat16() else None
    if "tensorflow" not in sys.modules:
        _chosen["by us"] = machine.ONEDNN not in os.environ
        if wanted is not None:
            os.environ.setdefault(machine.ONEDNN, wanted)
        return
    # It was decided when TensorFlow was loaded, and the variable still says how.
    now = machine.with_onednn(os.environ.get(machine.ONEDNN))
    if _chosen.get("by us") and machine.with_onednn(wanted) != now:
        log.warning(
            "precision=%s is computed %s oneDNN here, as the first training of this process was, and rounds otherwise "
            "than by itself; hydra/launcher=workers hydra.launcher.jobs_per_process=1 gives every run a process",
            precision,
            "by" if now else "without",
        )


def _not_retracing(record: logging.LogRecord) -> bool:
    # Every training of a sweep is a function of its own, which TensorFlow takes for one that is built again and again.
    return "triggered tf.function retracing" not in record.getMessage()


def _set_threads(threading: Any, count: int) -> None:
    before = threading.get_intra_op_parallelism_threads()
    if before == count:
        return
    try:
        threading.set_intra_op_parallelism_threads(count)
        threading.set_inter_op_parallelism_threads(count)
    except RuntimeError:
        raise UserError(
            f"threads={count}: this process has computed with {before or 'every core'} already; "
            "hydra/launcher=workers hydra.launcher.jobs_per_process=1 gives every run a process"
        ) from None


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Keeps lines of `_CHATTER` off standard error; everything else comes through at the end, also after an error."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            kept.seek(0)
            for line in kept.read().decode(errors="replace").splitlines():
                if line.strip() and not _CHATTER.match(line):
                    print(line, file=sys.stderr)
