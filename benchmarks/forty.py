"""The article's 40 epochs of training steps and validations on batches in memory; tells seconds as JSON.

Needs no TensorFlow: what is read and augmented meanwhile is left out, on both sides.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.step import CLASSES, batch, network, torch_model

VALIDATION = 4  # batches of 64 that hold the 200 photos


def keras_epochs(given: argparse.Namespace, phase: str, epochs: int) -> Callable[[], object]:
    """Fits our network for a phase, first for one epoch of one step, which compiles it."""
    import keras

    from clothseg.models.unet import freeze
    from clothseg.training.metrics import segmentation_metrics

    keras.config.set_dtype_policy("mixed_bfloat16")
    made = network(given.backbone, given.size)
    freeze(made.encoder, phase == "frozen", batch_norm_frozen=False)
    made.model.compile(
        keras.optimizers.RMSprop(0.001),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=segmentation_metrics(CLASSES),
        jit_compile=True,
    )
    photos, labels = batch(given)

    def endless() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        while True:
            yield photos, labels

    def fit(epochs: int, steps: int) -> None:
        made.model.fit(
            endless(), epochs=epochs, steps_per_epoch=steps, validation_data=endless(), validation_steps=VALIDATION,
            verbose=0,
        )  # fmt: skip

    fit(1, 1)
    return lambda: fit(epochs, given.steps)


def torch_epochs(given: argparse.Namespace, phase: str, epochs: int) -> Callable[[], object]:
    """The same of the PyTorch model, compiled, with the accuracy of every batch."""
    import torch
    from torch.nn.functional import cross_entropy

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = torch_model(given).to(device, memory_format=torch.channels_last)
    frozen = phase == "frozen"
    model.encoder.requires_grad_(not frozen)
    optimizer = torch.optim.RMSprop([one for one in model.parameters() if one.requires_grad], lr=0.001, alpha=0.9)
    run = torch.compile(model)
    arrays = batch(given)

    def load() -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.from_numpy(arrays[0]).to(device, non_blocking=True).permute(0, 3, 1, 2) / 255
        return x, torch.from_numpy(arrays[1]).to(device, non_blocking=True).long()

    def fit(epochs: int, steps: int) -> None:
        for _ in range(epochs):
            right = torch.zeros((), device=device)
            model.train()
            if frozen:
                model.encoder.eval()
            for _ in range(steps):
                x, y = load()
                optimizer.zero_grad(set_to_none=True)
                with torch.autocast(device, dtype=torch.bfloat16):
                    logits = run(x)
                cross_entropy(logits.float(), y).backward()
                optimizer.step()
                right += (logits.argmax(1) == y).float().mean()
            model.eval()
            for _ in range(VALIDATION):
                x, y = load()
                with torch.inference_mode(), torch.autocast(device, dtype=torch.bfloat16):
                    right += (run(x).argmax(1) == y).float().mean()
            right.item()

    fit(1, 1)
    return lambda: fit(epochs, given.steps)


def main() -> None:
    """Measures both phases as the arguments say; compiling is not counted."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("framework", choices=["keras", "torch", "smp"])
    arguments.add_argument("--backbone", default="densenet121")
    arguments.add_argument("--size", type=int, default=128)
    arguments.add_argument("--batch", type=int, default=64)
    arguments.add_argument("--epochs", type=int, default=20, help="of each phase")
    arguments.add_argument("--steps", type=int, default=12, help="of an epoch")
    given = arguments.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    made = keras_epochs if given.framework == "keras" else torch_epochs
    took = 0.0
    for phase in ("frozen", "fine_tuning"):
        run = made(given, phase, given.epochs)
        begun = time.perf_counter()
        run()
        took += time.perf_counter() - begun
    print(json.dumps({"event": "end", "took": took}), flush=True)


if __name__ == "__main__":
    main()
