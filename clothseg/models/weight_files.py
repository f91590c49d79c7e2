"""Files of weights that anybody may have made. Importing this module loads neither Keras nor HDF5."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import h5py

# Bytes that a file may declare: Keras compresses nothing, and numbers that were trained hardly can be. What declares
# more would be memory that the file does not have to have, several times over while it is read.
MOST_TIMES, MOST_MORE = 10, 64_000_000


def check_hdf5(path: Path) -> None:
    """Refuses a file of weights that leads to other files, or would take up far more memory than it has on the disk.

    Raises:
        ValueError: names what is wrong with it.
        OSError: it is no HDF5 file.
    """
    import h5py

    most = MOST_TIMES * path.stat().st_size + MOST_MORE
    with h5py.File(path, "r") as file:
        declared = 0
        for name, found in _all_in(file):
            declared += _bytes_of_attributes(found)
            if isinstance(found, h5py.Dataset):
                if found.external or found.is_virtual:
                    raise ValueError(f"{name} has its numbers in another file, which is not read")
                declared += (found.size or 0) * found.dtype.itemsize
            if declared > most:
                raise ValueError(f"{name} makes it {declared} bytes, far more than there are in it")


def _all_in(file: h5py.File) -> Iterator[tuple[str, Any]]:
    """Every group and dataset with its name, once."""
    import h5py

    waiting, seen = [file], set[Any]()
    while waiting:
        group = waiting.pop()
        # What two hard links lead to is one.
        if (place := h5py.h5o.get_info(group.id).addr) in seen:
            continue
        seen.add(place)
        yield group.name, group
        if isinstance(group, h5py.Group):
            for name in group:
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise ValueError(f"{group.name.rstrip('/')}/{name} is a link to elsewhere, which is not followed")
                waiting.append(group[name])


def _bytes_of_attributes(of: h5py.Group | h5py.Dataset | h5py.Datatype) -> int:
    ids = (of.attrs.get_id(name) for name in of.attrs)
    return sum(one.get_space().get_simple_extent_npoints() * one.get_type().get_size() for one in ids)
