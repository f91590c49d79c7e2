"""Prepares a folder of pairs of 512 px, in a process of its own; tells seconds and memory as JSON."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from benchmarks.article_script import tell
from benchmarks.watch import Peak


def main() -> None:
    """Prepares as the arguments say."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path, help="with photos, labels and classes.txt")
    arguments.add_argument("cache", type=Path)
    given = arguments.parse_args()

    from clothseg.data.paired import PairedFolders
    from clothseg.data.prepared import prepare

    source = PairedFolders(name="folders", root=given.folder, photos="photos", labels="labels", classes="classes.txt")
    peak, begun, worked = Peak(), time.perf_counter(), time.process_time()
    prepare(
        source, image_size=(512, 512), resize="squash", label_resize="nearest", cache=given.cache, skip_invalid=False,
        workers=None,
    )  # fmt: skip
    took = {"seconds": time.perf_counter() - begun, "processor seconds": time.process_time() - worked}
    tell("end", **took, MB=peak.megabytes())


if __name__ == "__main__":
    main()
