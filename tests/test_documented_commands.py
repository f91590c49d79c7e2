"""Every command of the documentation is run, on drawn photos and with a small network, one page after the other.

Under CLOTHSEG_LONG=1; that each is taken is tested by default, by tests/test_documentation.py.
"""

from __future__ import annotations

import os
import re
import shlex
import zlib
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep
from omegaconf import OmegaConf
from PIL import Image
from small_backbone import SMALL_BACKBONE
from test_documentation import REPOSITORY, WRITTEN_BY_THE_READER, commands, first_of_each

from clothseg import entry
from clothseg.sweeps import plugin

# What is left of a training: all its parts, a step of each.
TINY = (
    "dataset=paperdoll", "dataset.count=160", "dataset.image_size=[48,40]", "image_size=[32,32]", "splitting.test=0.2",
    *SMALL_BACKBONE, "threads=1",
)  # fmt: skip
PAPERDOLL = REPOSITORY / "conf" / "dataset" / "paperdoll.yaml"
LEARNING = (("epochs", 4), ("steps_per_epoch", 20), ("validation_steps", 1))
A_STEP = {"epochs": 1, "steps_per_epoch": 1, "validation_steps": 1}
LITTLE_LOGGED = ("tracking.figures=false", "tracking.log_model=false")
# What only other machines have, by an argument, and what is told on this one.
ELSEWHERE = {"devices=2": "this machine has", "hydra/launcher=slurm": "srun", "hydra/launcher=ray_cluster": "Ray"}


class Reader:
    """Types commands into one folder.

    Attributes:
        folder: with the store.
        learned: the last run whose network can be taken away.
    """

    def __init__(self, folder: Path, clothseg: Any) -> None:
        self.folder = folder
        self.learned: str | None = None
        self._clothseg = clothseg

    def type(self, command: str, *arguments: str, until: Path | None = None) -> tuple[int, str]:
        """Exit status, and what was printed. With `until` the process is killed once there is that file."""
        done = self._clothseg(command, *arguments, folder=self.folder, until=until)
        return done.returncode, done.stdout + done.stderr

    def runs(self, kind: str) -> list[str]:
        """Ids of the trainings or sweeps that ended well, the last one last."""
        import mlflow

        client = mlflow.MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")
        found = client.search_runs(["1"], order_by=["attributes.start_time"])
        assert not [run.info.run_id for run in found if run.info.status == "RUNNING"]
        # A training has no role.
        kinds = {run.info.run_id: run.data.tags.get("role", "training") for run in found}
        return [run.info.run_id for run in found if run.info.status == "FINISHED" and kinds[run.info.run_id] == kind]


@pytest.fixture(scope="module")
def reader(tmp_path_factory, clothseg) -> Reader:
    folder = tmp_path_factory.mktemp("reader")
    random = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for name in "ab":
        Image.fromarray(random.integers(256, size=(60, 50, 3), dtype=np.uint8)).save(folder / "photos" / f"{name}.jpg")
    made = Reader(folder, clothseg)
    # Those that pages compare, which are of the reader's own. The first commands compare two.
    for seed in range(4 if os.environ.get("CLOTHSEG_LONG") else 2):
        status, told = made.type("train", *small(["experiment=quickstart", f"seed={seed}"], made))
        assert status == 0, told
    return made


def small(given: list[str], reader: Reader) -> list[str]:
    """The arguments of a training, and such as leave it a few steps."""
    given = [two_of(argument) for argument in given]
    with hydra.initialize_config_dir(str(entry.config_folder())):
        single = first_of_each([argument for argument in given if not argument.startswith("-")])
        cfg = hydra.compose("train", [*single, "dataset=paperdoll"])
    tiny = [option for option in TINY if not any(argument.split("=")[0] == option.split("=")[0] for argument in given)]
    for name, phase in cfg.schedule.phases.items():
        tiny += [f"schedule.phases.{name}.{what}={count}" for what, count in A_STEP.items()]
        tiny += [f"schedule.phases.{name}.image_size=[32,32]"] if phase.image_size else []
    # What an experiment says of the real photos.
    # With their values, as Hydra's own sweeper reads a deletion without one as that of null.
    tiny += [f"~dataset.{key}={value}" for key, value in cfg.dataset.items() if key not in OmegaConf.load(PAPERDOLL)]
    # The small backbone scales photos itself.
    tiny += ["backbone.input_scaling=matched"] if cfg.backbone.input_scaling != "matched" else []
    if not any(argument.startswith("register=") for argument in given):
        tiny += LITTLE_LOGGED
    if "-m" in given and any(argument.startswith("sweep=") for argument in given):
        tiny += ["sweep.n_trials=2", "sweep.presets=presets"]
        # All pages share a folder here; on a page, sweeps in one folder are of one study or have names.
        number = zlib.crc32(" ".join(given).encode())
        tiny += [] if any("study_name" in argument for argument in given) else [f"sweep.study_name=study_{number}"]
    return [*given, *tiny]


def learn(reader: Reader) -> None:
    """A training that learns more than noise, whose network can be taken away."""
    options = [
        "experiment=quickstart",
        *TINY,
        *(f"schedule.phases.training.{what}={count}" for what, count in LEARNING),
    ]
    status, told = reader.type("train", *options, "optimizer.learning_rate=0.01", "tracking.figures=false")
    assert status == 0, told
    reader.learned = reader.runs("training")[-1]


def interrupt(reader: Reader) -> str:
    """The run of a training that is killed after its first epoch."""
    folder = reader.folder / f"interrupted_{len(list(reader.folder.glob('interrupted_*')))}"
    options = ["experiment=quickstart", f"hydra.run.dir={folder}"]
    longer = "schedule.phases.training.epochs=3"
    status, told = reader.type("train", *small(options, reader), longer, until=folder / "weights" / "state.npz")
    assert status == -9, told
    return re.findall(r"MLflow run .* \((\w{32})\)", told)[0]


def exported(reader: Reader) -> str:
    """A folder with an exported file, made once."""
    if not (reader.folder / "exported_before").exists():
        learn(reader)
        status, told = reader.type("export", "run=last", "format=onnx", "output=exported_before", "photos=1")
        assert status == 0, told
    return "exported_before"


def two_of(given: str) -> str:
    """An argument of a multirun, which sweeps over at most two values."""
    if given.startswith("-"):
        return given
    (override,) = OverridesParser.create().parse_overrides([given])
    if not override.is_sweep_override() or isinstance(override.value(), IntervalSweep):
        return given
    if isinstance(value := override.value(), Glob):
        found = sorted((REPOSITORY / "conf" / "experiment").glob(f"{value.include[0]}.yaml"))
        # Those of a series differ in what must be taken from them here.
        values = [path.stem for path in found[:1]]
    else:
        values = list(override.sweep_string_iterator())
    return f"{override.get_key_element()}={','.join(values[:2])}"


def typed(command: str, arguments: str, reader: Reader) -> list[str]:
    """What a reader types for it, who puts in their own runs and folders."""
    given = shlex.split(arguments)
    if ">" in given:
        del given[given.index(">") :]
    own = iter(reader.runs("training")[:4])
    names = re.compile(r"\b[AB](_0|_1|_seed_0|_seed_1)?(?=[,\]])")
    given = [names.sub(lambda _: next(own), argument) for argument in given]
    if any(argument.startswith("run=FOLDER/") for argument in given):
        given = [argument.replace("run=FOLDER/", f"run={exported(reader)}/") for argument in given]
    output = f"made_{len(list(reader.folder.glob('made_*')))}"
    given = [argument.replace("photos=FOLDER", "photos=photos").replace("FOLDER", output) for argument in given]
    if any(argument.startswith("resume=") for argument in given):
        interrupted = interrupt(reader)
        return [argument.replace("0" * 32, interrupted) for argument in given]
    if command == "register" or (command == "export" and reader.learned != reader.runs("training")[-1]):
        learn(reader)
    if "0" * 32 in arguments:
        # A study for `results`; else a training.
        last = reader.runs("sweep" if command == "results" else "training")[-1]
        given = [argument.replace("0" * 32, last) for argument in given]
    return given if command != "train" or "--help" in given or "--cfg" in given else small(given, reader)


RUN = [
    (page, command, arguments)
    for page, command, arguments in commands()
    # What the reader writes for them is there in tests/test_own_data.py and tests/test_documentation.py.
    if "wardrobe" not in arguments.partition("dataset")[2]
    and not any(part in arguments for part in WRITTEN_BY_THE_READER)
]


def test_all_but_a_few_are_run():
    assert len(RUN) > 0.85 * len(commands())
    # Those of `prepare` are of own data: tests/test_own_data.py.
    assert {command for _, command, _ in RUN} | {"prepare"} == {command for _, command, _ in commands()}


@pytest.mark.long
@pytest.mark.parametrize(("page", "command", "arguments"), RUN)
def test_a_command_does_what_its_page_says(page, command, arguments, reader):
    plugin.register()
    status, told = reader.type(command, *typed(command, arguments, reader))
    lacking = [told_here for argument, told_here in ELSEWHERE.items() if argument in arguments]
    if lacking:
        assert status == 2 and lacking[0] in told and "Traceback" not in told, told
    else:
        assert status == 0, told
    reader.runs("training")
