"""Somebody's own photos, label images and class list are trained on with the yaml of docs/own_data.md and no Python."""

from __future__ import annotations

import csv
import shutil
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
# What the page types, with less to do.
STRONG = (
    "experiment=strong", "image_size=[64,32]", "batch_size=4", *SMALL_BACKBONE, "schedule.phases.small.epochs=1",
    "schedule.phases.small.image_size=[32,32]", "schedule.phases.large.epochs=1", "tracking.log_model=false",
    "evaluation.flip=false",
)  # fmt: skip


def page(name: str) -> str:
    return (REPOSITORY / "docs" / name).read_text(encoding="utf-8")


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
    text = page("own_data.md")
    block = text[text.index("    defaults:\n") : text.index("    python -m clothseg.train dataset=wardrobe")]
    text = "\n".join(line[4:] for line in block.splitlines()).replace("~/", f"{folder}/")
    (folder / "mine" / "dataset").mkdir(parents=True)
    (folder / "mine" / "dataset" / "wardrobe.yaml").write_text(text, encoding="utf-8")
    assert len(text.strip().splitlines()) <= 10
    return folder


@pytest.fixture(scope="module")
def trained(wardrobe, clothseg):
    done = clothseg("train", "--config-dir", "mine", "dataset=wardrobe", *STRONG, folder=wardrobe)
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


def test_a_folder_with_a_list_of_classes_trains_as_it_is(wardrobe, clothseg, tmp_path):
    shutil.copytree(wardrobe / "data" / "wardrobe", tmp_path / "wardrobe")
    (tmp_path / "wardrobe" / "classes.txt").write_text("\n".join(CLASSES))
    typed = ["dataset=folders", "dataset.root=wardrobe"]
    assert f"python -m clothseg.train {' '.join(typed)}\n" in page("own_data.md")
    done = clothseg("train", *typed, *TINY, "tracking.figures=false", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "folders: 16 photos to train on, 4 to validate" in done.stdout
    assert [row["name"] for row in table(tmp_path, "val_native_classes")] == CLASSES


@pytest.mark.long
def test_own_groups_of_classes_are_trained_on_as_the_page_has_them(clothseg, tmp_path):
    text = page("recipes.md")
    block = text[text.index("    # label_groups/coats.yaml\n") :].partition("\n\n")[0]
    (tmp_path / "label_groups").mkdir()
    (tmp_path / "label_groups" / "coats.yaml").write_text("\n".join(line[4:] for line in block.splitlines()))
    typed = ["--config-dir", ".", "label_groups=coats"]
    assert f"python -m clothseg.train {' '.join(typed)}\n" in text
    drawn = ("dataset=paperdoll", "dataset.count=20", "tracking.figures=false")
    done = clothseg("train", *typed, *drawn, *TINY, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [row["name"] for row in table(tmp_path, "val_native_classes")] == ["background", "coat", "other"]


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
