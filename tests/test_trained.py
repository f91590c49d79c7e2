"""A run's folder may come from anybody: what is wrong in it is told on one line, and nothing in it is run."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import h5py
import hydra
import numpy as np
import pytest
from conftest import Harm
from omegaconf import OmegaConf

from clothseg import entry, trained
from clothseg.errors import UserError


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """What a run leaves, but for the network."""
    folder = tmp_path_factory.mktemp("run")
    with hydra.initialize_config_dir(str(entry.config_folder())):
        text = OmegaConf.to_yaml(hydra.compose("train", ["experiment=quickstart"]), resolve=True)
    for path, content in (
        ("config/config.yaml", text),
        ("data/split.json", '{"train": ["a"], "validation": ["b"], "test": []}'),
        ("tables/classes.csv", "class,name\n0,background\n1,hat\n"),
        ("weights/last.weights.h5", "no weights"),
        ("weights/best.weights.h5", "no weights"),
    ):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(content, encoding="utf-8")
    return folder


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def opened(folder: Path) -> trained.Trained:
    from clothseg.tracking.find import find

    return trained.opened(find(str(folder)), weights=None)


def told(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        opened(folder)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)
    return str(error.value)


def test_what_a_run_left_is_opened(folder):
    found = opened(folder)
    assert found.class_names == ("background", "hat") and found.part("validation") == ("b",)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "splitting"),
        ("- a list", "no mapping of options"),
        ("a: [", "no YAML"),
        ("a: ${b", "no YAML"),
        ("a: ${b}", "'b' not found"),
        ("a: !!python/object/apply:os.system ['touch CANARY']", "no YAML"),
        ("a: !!python/name:os.system", "no YAML"),
        ("a: ${none:b}", "none"),
        ("a: " + "[" * 1500, "no YAML"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "YAML aliases"),
        ("a: \0", "no YAML"),
    ],
    ids=range(11),
)
def test_a_configuration_that_is_none_is_told(folder, text, reason):
    canary = folder / "canary"
    (folder / "config" / "config.yaml").write_text(text.replace("CANARY", str(canary)), encoding="utf-8")
    assert reason in told(folder)
    assert not canary.exists()


@pytest.mark.parametrize(
    "part", ["dataset", "decoder", "loss", "optimizer", "augmentation", "sampling", "learning_rate"]
)
def test_what_a_strangers_configuration_names_is_not_run(folder, part):
    path, canary = folder / "config" / "config.yaml", folder / "canary"
    cfg = OmegaConf.load(path)
    cfg[part] = {"_target_": "os.system", "command": f"touch '{canary}'"}
    OmegaConf.save(cfg, path)
    found = opened(folder)
    with pytest.raises(UserError, match=rf"{part}\._target_=os\.system is none of the parts"):
        entry.build(found.cfg[part])
    assert not canary.exists()


@pytest.mark.parametrize(
    "text", ["", "class,name\n", "class,name\n0,background\n", "number\n0\n1\n", "class,name\n0\n1\n"]
)
def test_a_table_without_classes_is_told(folder, text):
    (folder / "tables" / "classes.csv").write_text(text)
    assert "tables/classes.csv without two or more classes" in told(folder)


def test_files_that_are_no_text_are_told(folder):
    for path in ("tables/classes.csv", "config/config.yaml"):
        (folder / path).write_bytes(b"\xff\xfe\x00")
        assert "cannot be read as text" in told(folder)


def test_a_split_that_is_none_is_told(folder):
    for content in ("", "[" * 100_000, '{"train": []}'):
        (folder / "data" / "split.json").write_text(content)
        with pytest.raises(UserError, match=r"split .*split\.json (is not JSON|has to be)"):
            opened(folder).part("train")


@pytest.mark.filterwarnings("ignore:Skipping nested container")
@pytest.mark.parametrize("kind", ["text", "empty", "pickle", "archive", "cut off", "other network", "lambda", "link"])
def test_weights_that_are_none_are_told_and_nothing_in_them_is_run(folder, tmp_path, monkeypatch, kind):
    keras = pytest.importorskip("keras")
    canary, path = tmp_path / "canary", folder / "weights" / "last.weights.h5"

    def network(units: int):
        photo = keras.Input((4,))
        return keras.Model(photo, keras.layers.Dense(units)(photo))

    monkeypatch.setattr(trained.assemble, "network", lambda *_, **__: SimpleNamespace(model=network(3)))
    network(3 if kind == "cut off" else 5).save_weights(path)
    if kind == "text":
        path.write_text("no weights")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Harm(canary)))
    elif kind == "archive":
        with path.open("wb") as file:
            np.savez(file, layers=np.array([Harm(canary)], object))
    elif kind == "cut off":
        path.write_bytes(path.read_bytes()[:-500])
    elif kind == "link":
        with h5py.File(path, "w") as file:
            file["layers/dense/vars/0"] = h5py.ExternalLink("/etc/hostname", "/")
    elif kind == "lambda":
        photo = keras.Input((4,))
        harm = eval(f"lambda x, place={str(canary)!r}: (open(place, 'w'), x)[1]")
        whole = keras.Model(photo, keras.layers.Lambda(harm, output_shape=(4,))(photo))
        canary.unlink(missing_ok=True)
        whole.save(tmp_path / "whole.keras")
        canary.unlink(missing_ok=True)
        shutil.copy(tmp_path / "whole.keras", path)
    found = opened(folder)
    with pytest.raises(
        UserError, match=r"run=.* has last\.weights\.h5 that do not fit its network or are damaged"
    ) as error:
        found.model(size=(64, 64), precision="float32")
    assert "\n" not in str(error.value)
    assert not canary.exists()
