"""Loading the Keras backend, and setting it up for one training."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

# What TensorFlow says of itself on every machine, through the C library and before its log level counts: that oneDNN
# is on, which instructions it was built for, and that there is no GPU, which reads like an error.
_CHATTER = re.compile(
    r"WARNING: All log messages before absl::InitializeLog|[IWE]\d{4} .*\b"
    r"(port|cudart_stub|cuda_platform|cuda_diagnostics|cuda_executor|cpu_feature_guard|computation_placer|cuda_\w+)"
    r"\.cc:\d+\]|"
    r"To enable the following instructions: .*rebuild TensorFlow"
)


def load(*, seed: int, deterministic: bool) -> None:
    """Imports Keras and its backend without their chatter, and seeds everything that draws random numbers.

    Args:
        seed: for Python, NumPy and the backend.
        deterministic: whether TensorFlow has to compute the same numbers every time (JAX on a CPU does).
    """
    with _without_chatter():
        import keras

        keras.utils.set_random_seed(seed)
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            # Looking for GPUs belongs to what TensorFlow comments on.
            tf.config.list_physical_devices()
            if deterministic:
                tf.config.experimental.enable_op_determinism()


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
