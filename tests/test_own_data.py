"""Somebody's own photos, label images and class list are trained on with the yaml of docs/own_data.md and no Python."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_backbone import SMALL_BACKBONE

REPOSITORY = Path(__file__).resolve().parents[1]
CLASSES = ["background", "skin", "hair", "top", "trousers", "dress", "shoes"]
TINY = (
    "experiment=article", "image_size=[64,32]", "batch_size=4", *SMALL_BACKBONE, "augmentation=light", "decoder=fpn",
    "optimizer=adam", "schedule=one_phase", "schedule.phases.training.epochs=1", "tracking.log_model=false",
)  # fmt: skip


@pytest.fixture(scope="module")
def wardrobe(tmp_path_factory) -> Path:
    """A folder with the data and, as the page has it, the yaml that names them."""
    folder = tmp_path_factory.mktemp("own")
    random = np.random.default_rng(0)
    for kind in ("photos", "labels"):
        (folder / "data" / "wardrobe" / kind).mkdir(parents=True)
    colours = random.integers(0, 256, (len(CLASSES), 3), np.uint8)
    for number in range(20):
        labels = np.zeros((96, 48), np.uint8)
        for value in range(1, len(CLASSES)):
            labels[8 + 12 * value : 20 + 12 * value, 10 + number % 5 : 36] = value
        noise = random.integers(-20, 20, (*labels.shape, 3))
        photo = np.clip(colours[labels] + noise, 0, 255).astype(np.uint8)
        Image.fromarray(photo).save(folder / "data" / "wardrobe" / "photos" / f"street {number}.jpg")
        Image.fromarray(labels).save(folder / "data" / "wardrobe" / "labels" / f"street {number}.png")
    page = (REPOSITORY / "docs" / "own_data.md").read_text(encoding="utf-8")
    block = page[page.index("    defaults:\n") : page.index("    python -m clothseg.train dataset=wardrobe")]
    text = "\n".join(line[4:] for line in block.splitlines()).replace("~/", f"{folder}/")
    (folder / "mine" / "dataset").mkdir(parents=True)
    (folder / "mine" / "dataset" / "wardrobe.yaml").write_text(text, encoding="utf-8")
    assert len(text.strip().splitlines()) <= 10
    return folder


@pytest.fixture(scope="module")
def trained(wardrobe, clothseg):
    done = clothseg("train", "--config-dir", "mine", "dataset=wardrobe", *TINY, folder=wardrobe)
    assert done.returncode == 0, done.stderr
    return wardrobe, done.stdout


def table(folder: Path, name: str) -> list[dict[str, str]]:
    (path,) = folder.glob(f"mlruns/*/*/artifacts/tables/{name}.csv")
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_it_is_trained_and_scored_under_its_own_name_with_its_own_classes(trained):
    folder, told = trained
    assert "wardrobe: 16 photos to train on, 4 to validate" in told
    for name in ("classes", "val_native_classes"):
        rows = table(folder, name)
        assert [row["name"] for row in rows] == CLASSES and all(int(row["pixels_labelled"]) > 0 for row in rows)
    assert {row["photo"] for row in table(folder, "val_native_photos")} < {f"street {number}" for number in range(20)}


@pytest.mark.long
def test_what_comes_after_training_knows_its_classes(trained, clothseg):
    folder, _ = trained
    photo = folder / "data" / "wardrobe" / "photos" / "street 3.jpg"
    done = clothseg("predict", "run=last", f"photos='{photo}'", "output=found", folder=folder)
    assert done.returncode == 0, done.stderr
    with Image.open(folder / "found" / "labels" / "street 3.jpg.png") as image:
        assert image.size == (48, 96) and image.getextrema()[1] < len(CLASSES)
    done = clothseg("evaluate", "run=last", "output=scored", "flip=true", folder=folder)
    assert done.returncode == 0 and "val_native_flip, 4 photos" in done.stdout, done.stderr


def test_it_is_looked_at_and_what_is_wrong_is_named_first(wardrobe, clothseg):
    root = wardrobe / "data" / "wardrobe"
    (root / "classes.txt").write_text("\n".join(CLASSES[:-1]))
    options = ("dataset=folders", f"dataset.root={root}", "image_size=[64,32]")
    done = clothseg("prepare", *options, folder=wardrobe)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "has the label 6; the highest of 6 classes is 5" in done.stderr
    (root / "classes.txt").write_text("\n".join(CLASSES))
    done = clothseg("prepare", *options, folder=wardrobe)
    assert done.returncode == 0, done.stderr
    assert "7 of 7 classes occur" in done.stdout
