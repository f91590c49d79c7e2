"""Training examples a second, without a network: ours, the article's, and a PyTorch DataLoader; tells as JSON."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

SIZE, BATCH = 128, 64


def ours(folder: Path, kind: str) -> Iterator[int]:
    """Batches of clothseg, by the configuration of the article or with random augmentation."""
    from clothseg import assemble, entry
    from clothseg.data.pipeline import training_batches
    from clothseg.settings import TrainSettings, check, options_of
    from clothseg.sweeps import plugin

    plugin.register()
    # The copies that the script trains on.
    copies = "augmentation.copies=[brightness,gamma,hue,crop,flip_horizontal,flip_vertical]"
    options = ["augmentation=light"] if kind == "light" else [copies]
    cfg = options_of(entry.compose("train", ["backbone.weights=null", *options]), "train", TrainSettings)
    settings = check(cfg, TrainSettings)
    data = assemble.data(cfg, settings)
    augmentation = entry.build(cfg.augmentation)
    augmentation.fit(data.parts.train, data.final.pixels[data.parts.train])
    batches = training_batches(
        data.final.photos, data.final.labels, data.parts.train, augmentation=augmentation, weights=None,
        batch_size=BATCH, seed=0, first_step=0, label_stride=1,
    )  # fmt: skip
    for photos, _ in batches:
        yield len(photos)


def article(folder: Path, kind: str) -> Iterator[int]:
    """The article's `tf.data`, from its decoded and resized lists on."""
    import tensorflow as tf

    photos, labels = arrays(folder)
    original = tf.data.Dataset.from_tensor_slices((photos.astype(np.float32) / 255, labels[..., None]))
    data = original

    def crop(image, mask):
        image, mask = tf.image.central_crop(image, 0.7), tf.image.central_crop(mask, 0.7)
        return (
            tf.image.resize(image, (SIZE, SIZE)),
            tf.cast(tf.image.resize(mask, (SIZE, SIZE), method="nearest"), tf.uint8),
        )

    for copy in (
        lambda image, mask: (tf.image.adjust_brightness(image, 0.1), mask),
        lambda image, mask: (tf.image.adjust_gamma(image, 0.1), mask),
        lambda image, mask: (tf.image.adjust_hue(image, -0.1), mask),
        crop,
        lambda image, mask: (tf.image.flip_left_right(image), tf.image.flip_left_right(mask)),
        lambda image, mask: (tf.image.flip_up_down(image), tf.image.flip_up_down(mask)),
    ):
        data = data.concatenate(original.map(copy))
    # In its cache are all 5,600 examples as floats, from the second pass on.
    data = data.cache() if kind == "cached" else data
    for images, _ in data.shuffle(1000).batch(BATCH).repeat().prefetch(tf.data.AUTOTUNE):
        yield len(images)


def torch(folder: Path, kind: str) -> Iterator[int]:
    """A DataLoader of two workers with albumentations that do what `augmentation=light` does."""
    import albumentations
    from torch.utils.data import DataLoader, Dataset

    photos, labels = arrays(folder)
    change = albumentations.Compose(
        [
            albumentations.HorizontalFlip(p=0.5),
            albumentations.Affine(scale=(0.85, 1.15), rotate=(-5, 5), translate_percent=(-0.03, 0.03), p=1.0),
            albumentations.ColorJitter(brightness=0.08, contrast=0.18, saturation=0.2, hue=0.02, p=1.0),
        ]
    )

    class Photos(Dataset):
        def __len__(self) -> int:
            return len(photos)

        def __getitem__(self, place: int):
            changed = change(image=photos[place], mask=labels[place])
            return changed["image"].astype(np.float32) / 255, changed["mask"]

    loader = DataLoader(Photos(), batch_size=BATCH, shuffle=True, num_workers=2, persistent_workers=True)
    while True:
        for images, _ in loader:
            yield len(images)


def arrays(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """800 photos uint8 (800, 128, 128, 3) and their masks uint8 (800, 128, 128)."""
    from PIL import Image

    names = sorted(path.stem for path in (folder / "masks").iterdir())[:800]
    box = Image.Resampling.BILINEAR, Image.Resampling.NEAREST
    photos = [
        Image.open(folder / "photos" / f"{name}.png").convert("RGB").resize((SIZE, SIZE), box[0]) for name in names
    ]
    masks = [Image.open(folder / "masks" / f"{name}.png").resize((SIZE, SIZE), box[1]) for name in names]
    return np.stack([np.asarray(one) for one in photos]), np.stack([np.asarray(one) for one in masks])


PIPELINES = {"ours": ours, "article": article, "torch": torch}


def main() -> None:
    """Measures as the arguments say: examples once it is going, or from the beginning of the process."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("pipeline", choices=PIPELINES)
    arguments.add_argument("folder", type=Path, help="with photos/NAME.png and masks/NAME.png")
    arguments.add_argument("--augmentation", choices=["article", "cached", "light"], default="article")
    arguments.add_argument("--epochs", type=int, help="of 12 batches, counted from the beginning of the process")
    arguments.add_argument("--seconds", type=float, default=15)
    given = arguments.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    batches = PIPELINES[given.pipeline](given.folder, given.augmentation)
    if given.epochs:
        for _ in range(12 * given.epochs):
            next(batches)
        tell((time.time() - psutil.Process().create_time()) / (12 * given.epochs * BATCH))
    # The first pass fills the cache.
    for _ in range(5600 // BATCH + 1 if given.augmentation == "cached" else 4):
        next(batches)
    begun, seen = time.perf_counter(), 0
    while time.perf_counter() - begun < given.seconds:
        seen += next(batches)
    tell((time.perf_counter() - begun) / seen)


def tell(took: float) -> None:
    """Ends the process with the seconds that an example took."""
    print(json.dumps({"event": "end", "took": took}), flush=True)
    os._exit(0)  # endless pipelines take their time to stop


if __name__ == "__main__":
    main()
