"""Training steps and predictions of one network in one framework, in a process of their own; tells seconds as JSON."""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

CLASSES = 59
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}  # of Keras


def network(backbone: str, size: int):
    """Our U-Net with the article's decoder, of the same random weights each time, under the present policy."""
    from functools import partial

    import keras

    from clothseg.models.backbones import build_encoder
    from clothseg.models.decoders import pix2pix, upsample
    from clothseg.models.fused import fuse
    from clothseg.models.unet import build_network

    keras.utils.set_random_seed(0)
    encoder = build_encoder(backbone, image_size=(size, size), weights=None, input_scaling="matched")
    decoder = partial(pix2pix, filters=(512, 256, 128, 64), upsample=upsample)
    built = build_network(encoder, decoder=decoder, classes=CLASSES, presence=False, gate=0, name="unet")
    fuse(built.model, deterministic=False)
    return built


def keras_step(given: argparse.Namespace) -> Callable[[], object]:
    """A step of `clothseg`, or one prediction."""
    import keras

    from clothseg.models.unet import freeze
    from clothseg.training import updates
    from clothseg.training.losses import CrossEntropy
    from clothseg.training.metrics import segmentation_metrics

    keras.config.set_dtype_policy(POLICIES[given.precision])
    made = network(given.backbone, given.size)
    given.parameters = sum(math.prod(weight.shape) for weight in made.model.trainable_weights)
    photos, labels = batch(given)
    if given.mode == "predict":
        from clothseg.evaluation.predictor import Member
        from clothseg.models.fused import least_batch

        member = Member(made.model, (given.size, given.size), "squash", least_batch=least_batch())
        return lambda: member.logits(photos)
    freeze(made.encoder, given.mode == "frozen", batch_norm_frozen=False)
    optimizer = keras.optimizers.RMSprop(0.001)
    updates.fuse(optimizer)
    made.model.compile(
        optimizer,
        CrossEntropy(class_weights=None, label_smoothing=0, prior=None, adjustment=0),
        metrics=segmentation_metrics(CLASSES),
        jit_compile=given.compile,
    )
    return lambda: made.model.train_on_batch(photos, labels)


def torch_model(given: argparse.Namespace):
    """The twin, which has as many parameters as ours, or the U-Net of segmentation_models.pytorch, decoder included."""
    if given.framework == "smp":
        import segmentation_models_pytorch as smp

        name = {"mobilenetv2": "mobilenet_v2"}.get(given.backbone, given.backbone)
        return smp.Unet(name, encoder_weights=None, classes=CLASSES)
    from benchmarks.twin import UNet

    return UNet(CLASSES)


def torch_step(given: argparse.Namespace) -> Callable[[], object]:
    """A step of a PyTorch model, or one prediction."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = torch_model(given).to(device, memory_format=torch.channels_last)
    given.parameters = None if given.framework == "smp" else sum(one.numel() for one in model.parameters())
    run = torch.compile(model) if given.compile else model
    photos, labels = batch(given)
    x = torch.from_numpy(photos).permute(0, 3, 1, 2).to(device).contiguous(memory_format=torch.channels_last) / 255
    y = torch.from_numpy(labels.astype(np.int64)).to(device)
    mixed = torch.autocast(device, dtype=torch.bfloat16, enabled=given.precision == "bfloat16")
    if given.mode == "predict":
        model.eval()

        def predict() -> object:
            with torch.inference_mode(), mixed:
                return run(x).float().cpu().numpy()

        return predict
    model.encoder.requires_grad_(given.mode != "frozen")
    if given.mode == "frozen":
        model.encoder.eval()
    optimizer = torch.optim.RMSprop([one for one in model.parameters() if one.requires_grad], lr=0.001, alpha=0.9)

    def step() -> object:
        optimizer.zero_grad(set_to_none=True)
        with mixed:
            logits = run(x)
        loss = torch.nn.functional.cross_entropy(logits.float(), y)
        loss.backward()
        optimizer.step()
        return float(loss)

    return step


def onnx_step(given: argparse.Namespace) -> Callable[[], object]:
    """One prediction of a file by ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(given.file), providers=["CPUExecutionProvider"])
    photos, _ = batch(given)
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: photos})


def exported_step(given: argparse.Namespace) -> Callable[[], object]:
    """One prediction as `clothseg.predict` makes it with an exported file."""
    photos, _ = batch(given)
    photos, member = photos.round(), exported(given.file, given.size).member("openvino", precision=given.precision)
    return lambda: member.logits(photos)


def exported(file: Path, size: int):
    """A file of our network as `clothseg.predict` opens it."""
    from clothseg.deployment.exported import Exported

    names = tuple(map(str, range(CLASSES)))
    return Exported(path=file, run="", weights="", class_names=names, size=(size, size), resize="squash")


def saved_model_step(given: argparse.Namespace) -> Callable[[], object]:
    """One prediction of a SavedModel."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(given.file))
    photos, _ = batch(given)
    return lambda: loaded.serve(photos).numpy()


def write(given: argparse.Namespace) -> None:
    """Our network as an ONNX file, alone and as `clothseg.export` writes it, and as a SavedModel, in float32."""
    import tf2onnx

    from clothseg.deployment import formats
    from clothseg.models.label_maps import label_map_network

    made = network(given.backbone, given.size).model
    given.file.mkdir(parents=True, exist_ok=True)
    whole = label_map_network(made, resize="squash")
    formats.write(whole, given.file / "label_maps.onnx", name="onnx", quantize=None, calibration=lambda: [])
    made.export(str(given.file / "saved_model"), verbose=False)
    import tensorflow as tf

    shape = tf.TensorSpec((None, given.size, given.size, 3), tf.float32)
    function = tf.function(lambda photos: made(photos, training=False))
    tf2onnx.convert.from_function(function, input_signature=[shape], output_path=str(given.file / "network.onnx"))


def batch(given: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Photos float32 (batch, size, size, 3) in 0..255 and labels uint8 (batch, size, size), of noise."""
    random = np.random.default_rng(0)
    photos = random.uniform(0, 255, (given.batch, given.size, given.size, 3)).astype(np.float32)
    return photos, random.integers(0, CLASSES, (given.batch, given.size, given.size), np.uint8)


STEPS = {
    "keras": keras_step, "torch": torch_step, "smp": torch_step, "onnx": onnx_step, "exported": exported_step,
    "saved_model": saved_model_step,
}  # fmt: skip


def main() -> None:
    """Measures as the arguments say: prints the median seconds of a call, and how many photos that is a second."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("framework", choices=[*STEPS, "write"])
    arguments.add_argument("mode", choices=["frozen", "fine_tuning", "predict"])
    arguments.add_argument("--precision", choices=[*POLICIES], default="float32")
    arguments.add_argument("--backbone", default="densenet121")
    arguments.add_argument("--size", type=int, default=128)
    arguments.add_argument("--batch", type=int, default=64)
    arguments.add_argument("--calls", type=int, default=4)
    arguments.add_argument("--compile", action="store_true")
    arguments.add_argument("--file", type=Path)
    given = arguments.parse_args()
    given.parameters = None
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if given.framework == "keras":
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as clothseg does
    if given.framework == "write":
        write(given)
        return
    call = STEPS[given.framework](given)
    for _ in range(2):
        call()
    took = []
    for _ in range(given.calls):
        begun = time.perf_counter()
        call()
        took.append(time.perf_counter() - begun)
    print(json.dumps({"event": "end", "took": statistics.median(took), "parameters": given.parameters}), flush=True)


if __name__ == "__main__":
    main()
