"""Label maps of photos at their own size by one runtime, in a process of its own; tells seconds as JSON."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.step import CLASSES, POLICIES, exported, network

SIZE, BATCH = 128, 16
FILES = {"saved_model": "native", "onnx": "native.onnx", "openvino": "native.onnx", "litert": "native.tflite"}
# Photos uint8 (own height, own width, 3), all of one size, to label maps uint8 (own height, own width).
Labels = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]


def write(given: argparse.Namespace) -> None:
    """The network of photos of any size to label maps, as `clothseg.export` writes it."""
    from clothseg.deployment import formats
    from clothseg.models.label_maps import label_map_network

    given.file.mkdir(parents=True, exist_ok=True)
    whole = label_map_network(network("densenet121", SIZE).model, resize="squash")
    for name in ("saved_model", "onnx", "litert"):
        formats.write(whole, given.file / FILES[name], name=name, quantize=None, calibration=lambda: [])


def predictor(given: argparse.Namespace):
    """What `clothseg.predict` predicts with: an exported file, or a run."""
    from clothseg.evaluation.predictor import Member, Predictor

    if given.runtime == "ours":
        member = exported(given.file / FILES["onnx"], SIZE).member("openvino", precision=given.precision)
        return Predictor([member], flip=False, offset=None)
    import keras

    from clothseg.models.fused import least_batch

    keras.config.set_dtype_policy(POLICIES[given.precision])
    made = network("densenet121", SIZE).model
    return Predictor([Member(made, (SIZE, SIZE), "squash", least_batch=least_batch())], flip=False, offset=None)


def ours(given: argparse.Namespace) -> Labels:
    """The way of `clothseg.predict` with one photo."""
    from clothseg.evaluation.upsample import label_map

    found = predictor(given)

    def labels(photos: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        how = {"allowed": None, "threads": os.cpu_count()}
        pairs = zip(photos, found(photos), strict=True)
        return [label_map(one, photo.shape[:2], window=window, **how) for photo, (one, window) in pairs]

    return labels


def saved_model(given: argparse.Namespace) -> Labels:
    """`model.predict` of Keras on the SavedModel."""
    import keras

    photos = keras.Input((None, None, 3), dtype="uint8")
    layer = keras.layers.TFSMLayer(str(given.file / FILES["saved_model"]), call_endpoint="serve")
    model = keras.Model(photos, layer(photos))
    return lambda photos: model.predict(np.stack(photos), batch_size=BATCH, verbose=0)["labels"]


def in_its_runtime(given: argparse.Namespace) -> Labels:
    """The file in its own runtime."""
    from clothseg.deployment import formats

    run = formats.opened(given.file / FILES[given.runtime], name=given.runtime, threads=os.cpu_count())
    return lambda photos: run(np.stack(photos))["labels"]


def openvino(given: argparse.Namespace) -> Labels:
    """The ONNX file in OpenVINO, whose own choice is bfloat16 where the processor computes in it."""
    import openvino as ov

    compiled = ov.Core().compile_model(str(given.file / FILES["openvino"]), "CPU")
    return lambda photos: compiled(np.stack(photos))["labels"]


def torch(given: argparse.Namespace) -> Labels:
    """The twin, channels last; photos and logits resized by PyTorch."""
    import torch
    from torch.nn.functional import interpolate

    from benchmarks.twin import UNet

    dtype = getattr(torch, given.precision)
    model = UNet(CLASSES).eval().to(dtype, memory_format=torch.channels_last)

    @torch.inference_mode()
    def labels(photos: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        own = torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).float()
        x = interpolate(own, (SIZE, SIZE), mode="bilinear", align_corners=False) / 255
        logits = model(x.to(dtype, memory_format=torch.channels_last)).float()
        # One by one: of 16 the resized logits would take 1.7 GB.
        high = (interpolate(one[None], own.shape[2:], mode="bilinear", align_corners=False) for one in logits)
        return [one.argmax(1)[0].to(torch.uint8).numpy() for one in high]

    return labels


RUNTIMES = {
    "ours": ours, "run": ours, "saved_model": saved_model, "onnx": in_its_runtime, "litert": in_its_runtime,
    "openvino": openvino, "torch": torch,
}  # fmt: skip


def latency(given: argparse.Namespace, paths: Sequence[Path]) -> float:
    """Median seconds from a decoded photo to its label map, one photo at a time."""
    labels = RUNTIMES[given.runtime](given)
    photos = [decoded(path) for path in paths[: given.photos]]
    for photo in photos[:3]:
        labels([photo])
    took = []
    for photo in photos:
        begun = time.perf_counter()
        labels([photo])
        took.append(time.perf_counter() - begun)
    return statistics.median(took)


def folder(given: argparse.Namespace, paths: Sequence[Path]) -> float:
    """Seconds a photo from files to files: read, labelled, written as indexed PNG; the first batch is not counted."""
    paths = paths[: given.photos + BATCH]
    with tempfile.TemporaryDirectory() as out:
        run = (
            _clothseg(given, Path(out))
            if given.runtime in ("ours", "run")
            else _plain(RUNTIMES[given.runtime](given), Path(out))
        )
        run(paths[:BATCH])
        begun = time.perf_counter()
        run(paths[BATCH:])
        return (time.perf_counter() - begun) / len(paths[BATCH:])


def _clothseg(given: argparse.Namespace, out: Path) -> Callable[[Sequence[Path]], None]:
    """What `python -m clothseg.predict overlays=false` does once it has loaded what it predicts with."""
    from clothseg import predict
    from clothseg.data.photos import find_photos
    from clothseg.prediction.output import Output

    found = predictor(given)
    names = [f"class {number}" for number in range(CLASSES)]

    def run(paths: Sequence[Path]) -> None:
        output = Output(out, made_by={}, class_names=names, overlays=False)
        predict._predict(find_photos([str(path) for path in paths]), found, output, batch_size=BATCH)

    return run


def _plain(labels: Labels, out: Path) -> Callable[[Sequence[Path]], None]:
    """What one would write around a runtime: threads that read ahead and write behind it."""
    from PIL import Image

    def write(path: Path, values: np.ndarray) -> None:
        Image.fromarray(values).save(out / f"{path.stem}.png")

    def run(paths: Sequence[Path]) -> None:
        parts = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
        with ThreadPoolExecutor() as threads:
            coming = deque([[threads.submit(decoded, path) for path in parts[0]]])
            for place, part in enumerate(parts):
                if place + 1 < len(parts):
                    coming.append([threads.submit(decoded, path) for path in parts[place + 1]])
                found = labels([photo.result() for photo in coming.popleft()])
                for path, values in zip(part, found, strict=True):
                    threads.submit(write, path, values)

    return run


def decoded(path: Path) -> np.ndarray:
    """A photo, uint8 (height, width, 3)."""
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def main() -> None:
    """Measures as the arguments say, or writes the files that are measured."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("runtime", choices=[*RUNTIMES, "write"])
    arguments.add_argument("mode", choices=["latency", "folder"])
    arguments.add_argument("file", type=Path, help="folder with the files that `write` wrote")
    arguments.add_argument("--jpegs", type=Path, help="folder of photos of one size")
    arguments.add_argument("--photos", type=int, default=200)
    arguments.add_argument("--precision", choices=[*POLICIES], default="float32", help="of ours and of PyTorch")
    given = arguments.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if given.runtime == "run":
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as clothseg does
    if given.runtime == "write":
        write(given)
        return
    paths = sorted(given.jpegs.iterdir())
    took = {"latency": latency, "folder": folder}[given.mode](given, paths)
    print(json.dumps({"event": "end", "took": took}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
