"""Files of weights that anybody may have made. Importing this module loads neither Keras nor HDF5."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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
        declared = _bytes_of_attributes(file)

        # Of links, which are not followed by this. What it returns ends it; what it raised would end it in HDF5.
        def wrong(name: str, link: h5py.HardLink | h5py.SoftLink | h5py.ExternalLink) -> str | None:
            nonlocal declared
            if not isinstance(link, h5py.HardLink):
                return f"{name} is a link to elsewhere, which is not followed"
            found = file[name]
            declared += _bytes_of_attributes(found)
            if isinstance(found, h5py.Dataset):
                if found.external or found.is_virtual:
                    return f"{name} has its numbers in another file, which is not read"
                declared += (found.size or 0) * found.dtype.itemsize
            return f"{name} makes it {declared} bytes, far more than there are in it" if declared > most else None

        reason = file.visititems_links(wrong)
    if reason is not None:
        raise ValueError(reason)


def _bytes_of_attributes(of: h5py.Group | h5py.Dataset | h5py.Datatype) -> int:
    return sum(of.attrs.get_id(name).get_storage_size() for name in of.attrs)
