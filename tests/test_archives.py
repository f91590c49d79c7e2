"""Nothing unpacks an archive, so what an archive says of where its files go is nowhere followed."""

from __future__ import annotations

import ast
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from conftest import REPOSITORY

from clothseg.data import folders, photos
from clothseg.data.ccp import Ccp, read_annotation
from clothseg.data.kaggle import Kaggle
from clothseg.data.paired import PairedFolders
from clothseg.errors import UserError
from clothseg.models.backbones import check_encoder
from clothseg.models.weight_files import check_hdf5

UNPACKING = {"tarfile", "zipfile", "py7zr", "rarfile", "patoolib", "libarchive"}
CALLS = {"unpack_archive", "extractall", "extract", "extract_archive", "get_file", "Untar", "Unzip", "Decompress"}


def test_nothing_in_the_package_unpacks_archives():
    for path in (REPOSITORY / "clothseg").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = {alias.name for alias in node.names} if isinstance(node, (ast.Import, ast.ImportFrom)) else set()
            if isinstance(node, ast.ImportFrom):
                names.add(str(node.module))
            if isinstance(node, (ast.Attribute, ast.Name)):
                names.add(node.attr if isinstance(node, ast.Attribute) else node.id)
            assert not {name.partition(".")[0] for name in names} & (UNPACKING | CALLS), f"{path}:{node.lineno}"


@pytest.fixture(params=["tar", "zip"])
def hostile(request, tmp_path) -> bytes:
    """An archive whose files would lie above the folder, at an absolute path and behind a symbolic link."""
    file = io.BytesIO()
    names = ("../above", str(tmp_path / "absolute"), "link/behind", "photos/0001.jpg", "config/config.yaml")
    if request.param == "tar":
        with tarfile.open(fileobj=file, mode="w") as archive:
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
            archive.addfile(link)
            for name in names:
                member = tarfile.TarInfo(name)
                member.size = 4
                archive.addfile(member, io.BytesIO(b"harm"))
    else:
        with zipfile.ZipFile(file, "w") as archive:
            link = zipfile.ZipInfo("link")
            link.external_attr = 0o120777 << 16
            archive.writestr(link, str(tmp_path))
            for name in names:
                archive.writestr(name, b"harm")
    return file.getvalue()


def kaggle(path: Path) -> object:
    return Kaggle(root=path).names()


def ccp(path: Path) -> object:
    return Ccp(root=path, pairing="name", subset="all", download=False).names()


def ccp_to_be_downloaded(path: Path) -> object:
    return Ccp(root=path, pairing="name", subset="all", download=True).names()


def paired(path: Path) -> object:
    return PairedFolders(name="own", root=path, photos="photos", labels="labels", classes=["a", "b"]).names()


def photos_to_predict(path: Path) -> object:
    return photos.read_photo(photos.find_photos([str(path)])[0].path)


def weights(path: Path) -> object:
    return check_encoder("mobilenetv2", image_size=(32, 32), weights=path)


@pytest.mark.parametrize(
    ("use", "name"),
    [
        (kaggle, "a.zip"),
        (ccp, "a.tar"),
        (ccp_to_be_downloaded, "a.tar"),
        (paired, "a.zip"),
        (folders.read_photo, "0001.jpg"),
        (folders.read_label_image, "0001.png"),
        (read_annotation, "0001.mat"),
        (photos_to_predict, "a.jpg"),
        (weights, "a.weights.h5"),
        (weights, "a.keras"),
    ],
)
def test_a_hostile_archive_is_told_on_one_line_and_leaves_nothing(hostile, tmp_path, monkeypatch, use, name):
    folder = tmp_path / "work" / "here"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    (folder / name).write_bytes(hostile)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as told:
        use(folder / name)
    assert name in str(told.value) and "\n" not in str(told.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_hostile_archive_is_no_run_and_no_weights(hostile, store, tmp_path):
    from clothseg.tracking.find import find

    path = tmp_path / "run.zip"
    path.write_bytes(hostile)
    with pytest.raises(UserError, match=r"^run=\S+run\.zip is none of what a run can be called"):
        find(str(path))
    with pytest.raises(OSError, match="Unable to"):
        check_hdf5(path)
    assert {file.name for file in tmp_path.iterdir()} <= {"run.zip", "mlflow.db"}
