"""`python -m benchmarks [ROW ...]`: measures rows in pairs and puts them into `experiments/benchmarks`."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from benchmarks.pairs import Compared, Measure, in_turns
from benchmarks.results import save


class Skipped(Exception):
    """A row cannot be measured here; the message says why."""


# Of the training that is compared with the article's script: the same network, photos, steps and epochs.
ARTICLE = ("backbone=densenet121", "backbone.weights=null", "tracking.log_model=false", "evaluation.native=false")


@dataclass(frozen=True)
class Setting:
    """Where and with what is measured.

    Attributes:
        work: a folder for stores, caches and files, kept between calls.
        weights: of MobileNetV2 and of DenseNet169, where the row needs trained ones.
        pairs: how often.
    """

    work: Path
    weights: Mapping[str, str]
    pairs: int

    def photos(self) -> Path:
        """The article's 1,000 photos and masks as PNG, as the article has them, and the photos as JPEG; made once."""
        folder = self.work / "pairs"
        if not (folder / "done").exists():
            from PIL import Image
            from tqdm import tqdm

            from clothseg import entry
            from clothseg.sweeps import plugin

            plugin.register()
            source = entry.build(entry.compose("train", ["dataset=ccp", "dataset.subset=article"]).dataset)
            for part in ("photos", "masks", "jpegs"):
                shutil.rmtree(folder / part, ignore_errors=True)
                (folder / part).mkdir(parents=True)
            for name in tqdm(source.names(), desc="writing photos and masks", unit="photo", disable=None):
                photo, labels = source.read(name)
                Image.fromarray(photo).save(folder / "photos" / f"{name}.png")
                Image.fromarray(photo).save(folder / "jpegs" / f"{name}.jpg", quality=95)
                Image.fromarray(labels).save(folder / "masks" / f"{name}.png")
            (folder / "done").touch()
        return folder

    def many(self, count: int) -> Path:
        """A data set of so many pairs of 512 px for `dataset=folders`: 500 of the article's, under many names."""
        folder = self.work / "large" / f"pairs_{count}"
        if not (folder / "classes.txt").exists():
            from PIL import Image

            from clothseg.data.labels import CLASS_NAMES

            kinds = {"photos": Image.Resampling.BILINEAR, "labels": Image.Resampling.NEAREST}
            for part, how in kinds.items():
                shutil.rmtree(folder / part, ignore_errors=True)
                (folder / part).mkdir(parents=True)
                sources = sorted((self.photos() / {"photos": "jpegs", "labels": "masks"}[part]).iterdir())[:500]
                for number, source in enumerate(sources):
                    first = folder / part / f"{number:05}{source.suffix}"
                    with Image.open(source) as image:
                        image.resize((512, 512), how).save(first, **({"quality": 90} if part == "photos" else {}))
                    for other in range(number + len(sources), count, len(sources)):
                        os.link(first, folder / part / f"{other:05}{source.suffix}")
            (folder / "classes.txt").write_text("\n".join(CLASS_NAMES), encoding="utf-8")
        return folder

    def written(self, files: Path, command: Sequence[str]) -> None:
        """Has a command write files into a folder, once for the code as it is."""
        code = hashlib.sha256()
        for path in sorted((ROOT / "clothseg").rglob("*.py")) + sorted((ROOT / "benchmarks").glob("*.py")):
            code.update(path.read_bytes())
        done = files / "done"
        if not done.exists() or done.read_text(encoding="utf-8") != code.hexdigest():
            shutil.rmtree(files, ignore_errors=True)
            self.events(command)
            done.write_text(code.hexdigest(), encoding="utf-8")

    def train(self, *overrides: str) -> list[str]:
        """The command that trains with what is measured in it."""
        return [sys.executable, "-m", "benchmarks.trained", *overrides]

    def article(self, *options: str) -> list[str]:
        """The command of the article's script."""
        return [sys.executable, "-m", "benchmarks.article_script", str(self.photos()), *options]

    def run(self, command: Sequence[str], folder: str) -> str:
        """What a command printed, run in a folder and with the store there."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        environment |= {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        environment |= {"NO_ALBUMENTATIONS_UPDATE": "1"}
        environment.setdefault("CLOTHSEG_CACHE", str(self.work / "cache"))
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise SystemExit(f"benchmarks: {' '.join(command)} ended with status {done.returncode}: {last}")
        return done.stdout

    def events(self, command: Sequence[str]) -> list[dict]:
        """What a command told, in a folder with a store of its own."""
        with tempfile.TemporaryDirectory(dir=self.work) as folder:
            return _told(self.run(command, folder))

    def last(self, command: Sequence[str], *names: str) -> dict[str, float]:
        """Of the last thing that a command told, some values."""
        last = self.events(command)[-1]
        return {name: last[name] for name in names}


ROOT = Path(__file__).resolve().parents[1]


def _told(printed: str) -> list[dict]:
    return [json.loads(line) for line in printed.splitlines() if line.startswith('{"event"')]


def start(setting: Setting) -> dict[str, Compared]:
    """From the command to the end of the first training step; prepared photos and MLflow's store are there."""
    with tempfile.TemporaryDirectory(dir=setting.work) as folder:
        ours = lambda: {"seconds": _told(setting.run(command, folder))[-1]["seconds"]}  # noqa: E731
        command = setting.train(*ARTICLE, "--first-step")
        ours()  # makes both
        return _turns(setting, ours, lambda: setting.last(setting.article("--first-step"), "seconds"))


def epochs(setting: Setting) -> dict[str, Compared]:
    """An epoch of 12 batches of 64 with DenseNet121 at 128 px."""

    def measured(events: list[dict]) -> dict[str, float]:
        # Of each phase the last of two epochs; the first builds the graph.
        took = {event["phase"]: event["took"] for event in events if event["event"] == "epoch"}
        return {f"{phase}, s": seconds for phase, seconds in took.items()}

    short = ("schedule.phases.frozen.epochs=2", "schedule.phases.fine_tuning.epochs=2")
    return _turns(
        setting,
        lambda: measured(setting.events(setting.train(*ARTICLE, *short))),
        lambda: measured(setting.events(setting.article("--epochs", "2", "2"))),
    )


def memory(setting: Setting) -> dict[str, Compared]:
    """Peak memory of a whole training, each side with everything it does, after all examples have been seen once."""
    # The script's cache is full after 88 of its steps, in the eighth epoch.
    ours = setting.train("backbone=densenet121", "backbone.weights=null", "schedule.phases.frozen.epochs=8",
                         "schedule.phases.fine_tuning.epochs=1")  # fmt: skip
    kinds = {"MB": (), "MB, gradient_checkpointing=true": ("gradient_checkpointing=true",)}

    def theirs() -> dict[str, float]:
        return dict.fromkeys(kinds, setting.last(setting.article("--epochs", "8", "1"), "megabytes")["megabytes"])

    return _turns(
        setting,
        lambda: {name: setting.last([*ours, *more], "megabytes")["megabytes"] for name, more in kinds.items()},
        theirs,
    )


def whole(setting: Setting) -> dict[str, Compared]:
    """All 40 epochs of the article with DenseNet169: seconds, and the share of pixels that is wrong at the end."""
    weights = setting.weights["densenet169"]

    def measured(command: Sequence[str]) -> dict[str, float]:
        *_, last, end = setting.events(command)
        return {"s": end["seconds"], "wrong pixels": 1 - last["accuracy"]}

    return _turns(
        setting,
        lambda: measured(setting.train("backbone=densenet169", f"backbone.weights={weights}")),
        lambda: measured(setting.article("--encoder", "DenseNet169", "--weights", weights)),
    )


def target(setting: Setting) -> dict[str, Compared]:
    """Seconds until the accuracy is reached that the article's script ends with (DenseNet169, 40 epochs)."""
    script = setting.article("--encoder", "DenseNet169", "--weights", setting.weights["densenet169"])
    fast = ("experiment=fast", f"backbone.weights={setting.weights['mobilenetv2']}", "evaluation.native=false")
    reached = 0.0

    def theirs() -> dict[str, float]:
        nonlocal reached
        *_, last, end = setting.events(script)
        reached = last["accuracy"]
        return {"seconds": end["seconds"]}

    def ours() -> dict[str, float]:
        found = [event for event in setting.events(setting.train(*fast)) if event["event"] == "epoch"]
        enough = [event["seconds"] for event in found if event["accuracy"] >= reached]
        if not enough:
            highest = max(event["accuracy"] for event in found)
            raise Skipped(f"experiment=fast reached {highest:.4f} at most, and the script {reached:.4f}")
        return {"seconds": enough[0]}

    # In each pair the script first: it says what has to be reached.
    pairs = [in_turns(theirs, ours, pairs=1, tell=_tell)["seconds"] for _ in range(setting.pairs)]
    return {"seconds": _together([Compared(one.theirs, one.ours) for one in pairs])}


def step(setting: Setting) -> dict[str, Compared]:
    """A training step of the same graph in PyTorch, in both precisions."""
    _need("torch")
    found = {}
    for mode in ("fine_tuning", "frozen"):
        for precision in precisions():
            one = _of_step(
                setting, ("keras", mode, "--precision", precision), ("torch", mode, "--precision", precision)
            )
            found[f"{mode} {precision}, s"] = one
    return found


def pipeline(setting: Setting) -> dict[str, Compared]:
    """Training examples without a network, seconds each; and a step on real batches against a step on one batch."""
    folder = str(setting.photos())

    def examples(which: str, *options: str) -> Measure:
        return lambda: setting.last([sys.executable, "-m", "benchmarks.pipeline", which, folder, *options], "took")

    cached, whole = ("--augmentation", "cached"), ("--augmentation", "cached", "--epochs", "40")
    found = {
        "article's, s": _turns(setting, examples("ours"), examples("article"))["took"],
        "article's from its cache, s": _turns(setting, examples("ours"), examples("article", *cached))["took"],
        "article's, 40 epochs from the command on, s": _turns(
            setting, examples("ours", "--epochs", "40"), examples("article", *whole)
        )["took"],
    }
    if importlib.util.find_spec("albumentations") and importlib.util.find_spec("torch"):
        light = ("--augmentation", "light")
        found["random, s"] = _turns(setting, examples("ours", *light), examples("torch", *light))["took"]
    short = (*ARTICLE, "schedule=one_phase", "schedule.phases.training.epochs=3",
             "schedule.phases.training.steps_per_epoch=8", "--untracked")  # fmt: skip

    def epoch(*options: str) -> Measure:
        return lambda: {"took": setting.events(setting.train(*short, *options))[-2]["took"]}

    found["waiting, epoch s"] = _turns(setting, epoch(), epoch("--one-batch"))["took"]
    return found


def prediction(setting: Setting) -> dict[str, Compared]:
    """Logits of 1 and 64 photos by an exported file, as `clothseg.predict` opens it, in the precision of the others."""
    _need("openvino")
    files = setting.work / "exported"
    setting.written(files, [*_STEP, "write", "predict", "--file", str(files)])
    *_, best = precisions()
    others = {
        "SavedModel": ("saved_model", "float32", "saved_model"),
        f"PyTorch {best}": ("torch", best, None),
        "ONNX Runtime": ("onnx", "float32", "network.onnx"),
        f"our own network in Keras, {best}": ("keras", best, None),
    }
    needed = {"torch": "torch", "onnx": "onnxruntime", "keras": "keras", "saved_model": "tensorflow"}
    label_maps = str(files / "label_maps.onnx")
    found = {}
    for name, (framework, precision, file) in others.items():
        if importlib.util.find_spec(needed[framework]) is None:
            _tell(f"{needed[framework]} is not installed: {name} is left out")
            continue
        given = (framework, "predict", "--precision", precision, *(("--file", str(files / file)) if file else ()))
        for size in (1, 64):
            more = ("--batch", str(size), "--calls", "30" if size == 1 else "6")
            ours = ("exported", "predict", "--file", label_maps, "--precision", precision, *more)
            found[f"{size} against {name}, s"] = _of_step(setting, ours, (*given, *more))
    return found


def native(setting: Setting) -> dict[str, Compared]:
    """Photos to label maps at their own size: one decoded photo, and a folder of 200 from files to files, a photo.

    Ours computes in the precision of the other: of OpenVINO, PyTorch and a run that is the processor's fastest.
    """
    _need("openvino")
    files, jpegs = setting.work / "exported_native", setting.photos() / "jpegs"
    runner = [sys.executable, "-m", "benchmarks.native"]
    setting.written(files, [*runner, "write", "latency", str(files)])
    needed = {"saved_model": "tensorflow", "torch": "torch", "onnx": "onnxruntime", "openvino": "openvino",
              "litert": "tensorflow", "run": "keras"}  # fmt: skip

    def measure(runtime: str, mode: str, precision: str) -> Measure:
        command = [*runner, runtime, mode, str(files), "--jpegs", str(jpegs), "--precision", precision]
        more = ["--photos", "30"] if mode == "latency" else []
        return lambda: setting.last([*command, *more], "took")

    found = {}
    for runtime, package in needed.items():
        if importlib.util.find_spec(package) is None:
            _tell(f"{package} is not installed: {runtime} is left out")
            continue
        precision = precisions()[-1] if runtime in ("openvino", "torch", "run") else "float32"
        for mode in ("latency", "folder"):
            ours, theirs = (measure(one, mode, precision) for one in ("ours", runtime))
            found[f"{mode} against {runtime}, s"] = _turns(setting, ours, theirs)["took"]
    return found


def endurance(setting: Setting) -> dict[str, Compared]:
    """500 short epochs, all tracked: memory, files, threads after the last and after the 50th; seconds of logging."""
    phase = "schedule.phases.training"
    short = ("experiment=quickstart", "dataset.count=64", "image_size=[32,32]", f"{phase}.epochs=500",
             f"{phase}.steps_per_epoch=4")  # fmt: skip
    found: dict[str, list[Compared]] = {}
    for _ in range(setting.pairs):
        epochs = [event for event in setting.events(setting.train(*short, "--watch")) if event["event"] == "epoch"]
        early, last = epochs[49], epochs[-1]
        values = {what: (last[what], early[what]) for what in ("MB", "files", "threads")}
        lasted = last["seconds"] - epochs[0]["seconds"]
        values["s that training stood still to log"] = (last["stood still"], lasted)
        values["processor s of delivering"] = (last["delivering"], lasted)
        for what, (ours, theirs) in values.items():
            _tell(f"{what}: {ours:.4g}, {theirs:.4g}")
            found.setdefault(what, []).append(Compared((ours,), (theirs,)))
    return {what: _together(parts) for what, parts in found.items()}


def large(setting: Setting) -> dict[str, Compared]:
    """50,000 pairs of 512 px (53 GB): preparing against its processor time, memory and start against those of 500."""
    train = ("experiment=fast", "dataset=folders", "backbone.weights=null", "image_size=[512,512]", "batch_size=4",
             "schedule=one_phase", "schedule.phases.training.epochs=3", "schedule.phases.training.steps_per_epoch=8",
             "schedule.phases.training.validation_steps=2", "evaluation.native=false",
             "tracking.log_model=false", "--watch")  # fmt: skip

    def prepared(count: int) -> tuple[Path, dict[str, float]]:
        folder = setting.many(count)
        told = setting.events([*_PREPARE, str(folder), str(setting.work / "large")])[-1]
        return folder, {name: told[name] for name in ("seconds", "processor seconds", "MB")}

    def trained(folder: Path) -> dict[str, float]:
        given = (f"dataset.root={folder}", f"prepare.cache={setting.work / 'large'}")
        events = setting.events(setting.train(*train, *given))
        begun = next(event["seconds"] for event in events if event["event"] == "fit")
        return {"MB": events[-1]["peak"], "seconds": begun}

    try:
        (few, of_few), (many, of_many) = prepared(500), prepared(50_000)
        _tell(f"preparing: {of_few}, {of_many}")
        found = {
            "preparing, s against processor s a core": Compared(
                (of_many["seconds"],), (of_many["processor seconds"] / (os.cpu_count() or 1),)
            ),
            "preparing, MB": Compared((of_many["MB"],), (of_few["MB"],)),
        }
        compared = _turns(setting, lambda: trained(many), lambda: trained(few))
        return found | {"training, MB": compared["MB"], "training, s until its first step": compared["seconds"]}
    finally:
        shutil.rmtree(setting.work / "large", ignore_errors=True)


def _together(parts: Sequence[Compared]) -> Compared:
    return Compared(
        tuple(value for part in parts for value in part.ours), tuple(value for part in parts for value in part.theirs)
    )


def floor(setting: Setting) -> dict[str, Compared]:
    """A step against the time that its operations take at the rate of a plain matrix product."""
    found = {}
    for mode in ("predict", "frozen", "fine_tuning"):
        for precision in precisions():
            given = (mode, "--precision", precision)
            found[f"{mode} {precision}, s"] = _turns(
                setting,
                lambda given=given: setting.last([*_STEP, "keras", *given], "took"),
                lambda given=given: setting.last([*_FLOOR, *given], "took"),
            )["took"]
    return found


def tracked(setting: Setting) -> dict[str, Compared]:
    """`fast` from its first step to its end with everything tracked, and with nothing."""
    fast = ("experiment=fast", f"backbone.weights={setting.weights['mobilenetv2']}", "evaluation.native=false")

    def measured(*options: str) -> Measure:
        def once() -> dict[str, float]:
            events = setting.events(setting.train(*fast, *options))
            begun = next(event["seconds"] for event in events if event["event"] == "fit")
            return {"s": events[-1]["seconds"] - begun}

        return once

    return _turns(setting, measured(), measured("--untracked"))


def commands(setting: Setting) -> dict[str, Compared]:
    """Seconds of short commands, against what they may take."""
    given = {
        "--help": ([sys.executable, "-m", "clothseg.train", "--help"], 1.5),
        "a misspelt option": ([sys.executable, "-m", "clothseg.train", "bacbone=densenet121"], 1.5),
        "import clothseg": ([sys.executable, "-c", "import clothseg"], 0.2),
    }
    found = {}
    for name, (command, most) in given.items():

        def once(command: list[str] = command) -> dict[str, float]:
            begun = time.perf_counter()
            subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
            return {"s": time.perf_counter() - begun}

        found[f"{name}, s"] = in_turns(once, lambda most=most: {"s": most}, pairs=max(5, setting.pairs), tell=_tell)[
            "s"
        ]
    return found


def sweep(setting: Setting) -> dict[str, Compared]:
    """A sweep of 12 short trials against 12 commands."""
    phase = "schedule.phases.training"
    short = ("experiment=quickstart", "dataset.count=100", f"{phase}.epochs=1", f"{phase}.steps_per_epoch=5",
             "evaluation.native=false", "tracking.log_model=false")  # fmt: skip
    train = [sys.executable, "-m", "clothseg.train", *short]
    together = [*train, "-m", "sweep=lr_batch", "sweep.n_trials=12", "batch_size=16", "sweep.presets=presets"]
    each = [[*train, f"optimizer.learning_rate={0.0001 * 1.3**number}"] for number in range(12)]

    def run(*commands: Sequence[str]) -> Measure:
        def once() -> dict[str, float]:
            with tempfile.TemporaryDirectory(dir=setting.work) as folder:
                (Path(folder) / "presets").mkdir()
                begun = time.perf_counter()
                for command in commands:
                    setting.run(command, folder)
                return {"s": time.perf_counter() - begun}

        return once

    return _turns(setting, run(together), run(*each))


def gpu(setting: Setting) -> dict[str, Compared]:
    """On a GPU in bfloat16: steps under `KERAS_BACKEND=jax` against PyTorch's and the matrix rate; the 40 epochs."""
    if shutil.which("nvidia-smi") is None:
        raise Skipped("it needs a GPU, with JAX and PyTorch for it; there is no nvidia-smi")
    _need("torch", "jax")
    with mock.patch.dict(os.environ, {"KERAS_BACKEND": "jax"}):
        return _on_gpu(setting)


def _on_gpu(setting: Setting) -> dict[str, Compared]:
    other = "smp" if importlib.util.find_spec("segmentation_models_pytorch") else "torch"
    if other == "torch":
        _tell(
            "segmentation_models_pytorch is not installed: DenseNet121 is set against twin.py, MobileNetV2 against none"
        )
    found = {}
    for backbone in ("densenet121", "mobilenetv2"):
        for size in (128, 256):
            about = ("--precision", "bfloat16", "--size", str(size), "--backbone", backbone)
            ours = [*_STEP, "keras", "fine_tuning", *about, "--calls", "30", "--compile"]
            theirs = [*_STEP, other, "fine_tuning", *about, "--calls", "30", "--compile"]
            compared = {f"{backbone} {size} px over the matrix rate, s": [*_FLOOR, "fine_tuning", *about]}
            if other == "smp" or backbone == "densenet121":
                compared = {f"{backbone} {size} px, s": theirs, **compared}
            for name, command in compared.items():
                found[name] = _turns(
                    setting,
                    lambda ours=ours: setting.last(ours, "took"),
                    lambda command=command: setting.last(command, "took"),
                )["took"]
    forty = [sys.executable, "-m", "benchmarks.forty"]
    found["40 epochs, s"] = _turns(
        setting,
        lambda: setting.last([*forty, "keras"], "took"),
        lambda: setting.last([*forty, other], "took"),
    )["took"]
    return found


# Every row, with the highest ratios that are wanted.
ROWS: dict[str, tuple[Callable[[Setting], dict[str, Compared]], dict[str, float]]] = {
    "start": (start, {"seconds": 0.25}),
    "epochs": (epochs, {"frozen, s": 0.5, "fine_tuning, s": 0.65}),
    "memory": (memory, {"MB": 1 / 3, "MB, gradient_checkpointing=true": 1 / 3}),
    "whole": (whole, {"wrong pixels": 1.0}),
    "target": (target, {"seconds": 0.2}),
    "step": (step, {f"{m} {p}, s": 1.0 for m in ("frozen", "fine_tuning") for p in ("float32", "bfloat16")}),
    "pipeline": (
        pipeline,
        {
            "article's, s": 0.2,
            "article's from its cache, s": 0.2,
            "article's, 40 epochs from the command on, s": 0.2,
            "random, s": 0.5,
            "waiting, epoch s": 1.03,
        },
    ),
    "prediction": (
        prediction,
        {
            f"{n} against {name}, s": 1.0
            for n in (1, 64)
            for name in ("SavedModel", "PyTorch float32", "PyTorch bfloat16", "ONNX Runtime")
        },
    ),
    "native": (
        native,
        {
            f"{mode} against {name}, s": 1.0
            for mode in ("latency", "folder")
            for name in ("saved_model", "torch", "onnx", "openvino", "litert")
        },
    ),
    "floor": (floor, {}),
    "endurance": (endurance, {"MB": 1.05, "files": 1.0, "threads": 1.0, "s that training stood still to log": 0.02}),
    "large": (large, {"preparing, s against processor s a core": 1.1, "training, MB": 1.1}),
    "tracked": (tracked, {"s": 1.03}),
    "commands": (commands, {"--help, s": 1.0, "a misspelt option, s": 1.0, "import clothseg, s": 1.0}),
    "sweep": (sweep, {"s": 1.0}),
    "gpu": (gpu, {f"{name} {size} px, s": 1.0 for name in ("densenet121", "mobilenetv2") for size in (128, 256)}),
}
WEIGHTS = {"tracked": ["mobilenetv2"], "target": ["mobilenetv2", "densenet169"], "whole": ["densenet169"]}
ASKED_FOR = ("whole", "target", "large", "gpu")  # rows that are left out unless they are named
_STEP = [sys.executable, "-m", "benchmarks.step"]
_PREPARE = [sys.executable, "-m", "benchmarks.preparing"]
_FLOOR = [sys.executable, "-m", "benchmarks.floor"]


def main(given: Sequence[str] | None = None) -> None:
    """Measures the rows that are named, or all but those of `ASKED_FOR`."""
    arguments = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    listed = f"of {', '.join(ROWS)}; without any, all but {', '.join(ASKED_FOR)}"
    arguments.add_argument("rows", nargs="*", metavar="ROW", help=listed)
    arguments.add_argument("--pairs", type=int, default=3)
    arguments.add_argument("--output", type=Path, default=ROOT / "experiments" / "benchmarks")
    arguments.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "clothseg-benchmarks")
    arguments.add_argument("--mobilenetv2", metavar="FILE", help="of weights, for tracked and target")
    arguments.add_argument("--densenet169", metavar="FILE", help="of weights, for target and whole")
    options = arguments.parse_args(given)
    for row in options.rows:
        if row not in ROWS:
            raise SystemExit(f"benchmarks: there is no row {row}; there are {', '.join(ROWS)}")
    if options.pairs < 1:
        raise SystemExit(f"benchmarks: --pairs {options.pairs} measures nothing; 1 or more does")
    weights = {
        name: str(Path(file).resolve()) for name in ("mobilenetv2", "densenet169") if (file := getattr(options, name))
    }
    chosen = options.rows or [row for row in ROWS if row not in ASKED_FOR]
    for row, needed in WEIGHTS.items():
        for name in needed:
            if row in chosen and name not in weights:
                raise SystemExit(f"benchmarks: {row} needs trained weights; --{name} FILE names them")
    options.work.mkdir(parents=True, exist_ok=True)
    setting = Setting(options.work.resolve(), weights, options.pairs)
    for row in chosen:
        measure, goals = ROWS[row]
        _tell(f"{row}: {(measure.__doc__ or row).splitlines()[0]}")
        try:
            save(options.output, row, goals, measure(setting), machine(gpu=row == "gpu"))
        except Skipped as reason:
            _tell(f"{row} is left out: {reason}")
    _tell(f"results: {options.output}")


def precisions() -> tuple[str, ...]:
    """Those that the processor has instructions for, the fastest last; bfloat16 that is emulated measures nothing."""
    from clothseg.machine import has_bfloat16

    return ("float32", "bfloat16") if has_bfloat16() else ("float32",)


def machine(*, gpu: bool) -> str:
    """Processor or GPU, cores and versions, in words."""
    from importlib.metadata import version

    from clothseg.machine import processor

    if gpu:
        asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        cards = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split("\n")
        return f"{cards[0]}, JAX {version('jax')}, Keras {version('keras')}"

    return f"{processor()}, {os.cpu_count()} cores, Keras {version('keras')}"


def _of_step(setting: Setting, ours: Sequence[str], theirs: Sequence[str]) -> Compared:
    counts = set()

    def measure(given: Sequence[str]) -> Measure:
        def once() -> dict[str, float]:
            told = setting.events([*_STEP, *given])[-1]
            counts.add(told["parameters"])
            return {"took": told["took"]}

        return once

    compared = _turns(setting, measure(ours), measure(theirs))["took"]
    if len(counts - {None}) > 1:
        raise SystemExit(f"benchmarks: {ours} and {theirs} have {counts} parameters; only as many can be compared")
    return compared


def _turns(setting: Setting, ours: Measure, theirs: Measure) -> dict[str, Compared]:
    return in_turns(ours, theirs, pairs=setting.pairs, tell=_tell)


def _need(*packages: str) -> None:
    for name in packages:
        if importlib.util.find_spec(name) is None:
            raise Skipped(f'{name} is not installed; pip install -e ".[benchmarks]"')


def _tell(what: str) -> None:
    print(what, flush=True)


if __name__ == "__main__":
    main()
