"""Files of weights lead nowhere else and are as large as they say."""

from __future__ import annotations

from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from clothseg.errors import UserError
from clothseg.models import backbones
from clothseg.models.weight_files import check_hdf5


def soft(file, folder):
    file["layers/kernel"] = h5py.SoftLink("/elsewhere")


def external_link(file, folder):
    with h5py.File(folder / "secret.h5", "w") as secret:
        secret["kernel"] = np.ones(3)
    file["layers/kernel"] = h5py.ExternalLink(str(folder / "secret.h5"), "/kernel")


def external_dataset(file, folder):
    (folder / "secret").write_bytes(bytes(400))
    file.create_dataset("layers/kernel", (100,), "f4", external=[(str(folder / "secret"), 0, 400)])


def virtual(file, folder):
    layout = h5py.VirtualLayout((100,), "f4")
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "kernel", (100,))
    file.create_virtual_dataset("layers/kernel", layout)


def empty_chunks(file, folder):
    file.create_dataset("layers/kernel", (1 << 29,), "f4", chunks=(1 << 16,))


def compressed(file, folder):
    file.create_dataset("layers/kernel", data=np.zeros(20_000_000, np.float32), compression="gzip")


def test_attributes_without_a_value_are_no_hindrance(tmp_path):
    # As Keras writes for layers without weights, in its older format.
    with h5py.File(tmp_path / "some.h5", "w") as file:
        file.create_group("layer").attrs["weight_names"] = np.zeros((0,), "S1")
        file["layer"].attrs["none"] = h5py.Empty("f4")
        file["again"] = file["layer"]
    check_hdf5(tmp_path / "some.h5")


@pytest.mark.parametrize(
    ("craft", "told"),
    [
        (soft, "layers/kernel is a link to elsewhere"),
        (external_link, "layers/kernel is a link to elsewhere"),
        (external_dataset, "layers/kernel has its numbers in another file"),
        (virtual, "layers/kernel has its numbers in another file"),
        (empty_chunks, "layers/kernel makes it 2147483648 bytes, far more than"),
        (compressed, "layers/kernel makes it 80000000 bytes, far more than"),
    ],
)
def test_a_crafted_file_is_refused_by_the_name_of_what_is_wrong(tmp_path, craft, told):
    path = tmp_path / "crafted.weights.h5"
    with h5py.File(path, "w") as file:
        craft(file, tmp_path)
    with pytest.raises(ValueError, match=told):
        check_hdf5(path)


def test_compressed_weights_and_many_names_of_one_group_are_taken(tmp_path):
    path = tmp_path / "own.weights.h5"
    with h5py.File(path, "w") as file:
        kernel = np.random.default_rng(0).standard_normal(100_000, np.float32)
        file.create_dataset("layers/kernel", data=kernel, compression="gzip")
        file.create_dataset("layers/nothing", data=h5py.Empty("f4"))
        file.create_dataset("layers/scalar", data=1.0)
        file["again"], file["layers/round"] = file["layers"], file["layers"]
        file["layers"].attrs["weight_names"] = ["kernel", "nothing"]
    check_hdf5(path)


def test_a_backbone_is_not_loaded_from_a_crafted_file(tmp_path):
    path = tmp_path / "crafted.weights.h5"
    with h5py.File(path, "w") as file:
        empty_chunks(file, tmp_path)
    network = SimpleNamespace(load_weights=lambda _: pytest.fail("it was loaded"))
    with pytest.raises(UserError, match=r"no weights for mobilenetv2 .*layers/kernel makes it 2147483648 bytes"):
        backbones._load_file("mobilenetv2", network, path)


def test_real_files_are_taken(weights_folder):
    files = sorted(weights_folder.rglob("*.h5"))
    assert files
    for path in files:
        check_hdf5(path)
