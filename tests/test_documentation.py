"""What the documentation says can be typed is what the commands take, and every option is explained."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import hydra
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep
from omegaconf import OmegaConf

from clothseg import entry, settings
from clothseg.sweeps import plugin

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
CHECKS = {
    "deliver": settings.DeliverSettings,
    "train": settings.TrainSettings, "prepare": settings.PrepareSettings, "results": settings.ResultsSettings,
    "predict": settings.PredictSettings, "export": settings.ExportSettings, "register": settings.RegisterSettings,
    "compare": settings.CompareSettings, "report": settings.ReportSettings, "evaluate": settings.EvaluateSettings,
}  # fmt: skip
# Names that the reader puts in, where a value of their own is needed.
PLACEHOLDERS = {"<run id>": "0" * 32, "<MLflow run id>": "0" * 32}
# Choices that pages have the reader write, in the folders that they name.
WRITTEN_BY_THE_READER = ("dataset=wardrobe", "label_groups=coats", "experiment=best_of_", "--config-dir")


def lines_of_code(text: str) -> Iterator[str]:
    """Of indented and fenced blocks, with lines that go on joined."""
    fenced, joined = False, ""
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            joined += line.strip()
            if joined.endswith("\\"):
                joined = joined[:-1]
                continue
            yield joined
        joined = ""


@cache
def commands() -> tuple[tuple[str, str, str], ...]:
    """Page, command and everything after it, each once."""
    found = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        inline = re.findall(r"`(python -m clothseg\.[^`]+)`", text)
        for line in [*lines_of_code(text), *inline]:
            for part in re.findall(r"python -m clothseg\.\w+[^&|\"]*", line):
                part = part.partition("  #")[0].strip()
                for name, value in PLACEHOLDERS.items():
                    part = part.replace(name, value)
                _, _, module, *arguments = shlex.split(part)
                # In the midst of a sentence a command may be but named, or shortened.
                if not arguments or "..." in part:
                    assert (REPOSITORY / "clothseg" / f"{module.removeprefix('clothseg.')}.py").exists(), part
                    continue
                found.setdefault((module.removeprefix("clothseg."), shlex.join(arguments)), page.name)
    return tuple((page, command, arguments) for (command, arguments), page in found.items())


def first_of_each(overrides: list[str]) -> list[str]:
    """One job of a multirun: of every sweep over values the first."""
    single = []
    for given, override in zip(overrides, OverridesParser.create().parse_overrides(overrides), strict=True):
        if override.is_sweep_override():
            swept = override.value()
            if isinstance(swept, Glob):
                first = next(
                    path.stem for path in (REPOSITORY / "conf" / "experiment").glob(f"{swept.include[0]}.yaml")
                )
            elif isinstance(swept, IntervalSweep):
                first = swept.start
            else:
                first = next(iter(override.sweep_string_iterator()))
            given = f"{override.get_key_element()}={first}"
        single.append(given)
    return single


def test_there_are_commands_of_every_kind():
    assert {command for _, command, _ in commands()} == set(CHECKS)
    assert len(commands()) > 60


@pytest.mark.parametrize(("page", "command", "arguments"), commands())
def test_every_command_of_the_documentation_is_taken(page, command, arguments):
    given = [argument for argument in shlex.split(arguments) if argument not in ("--help", "-m")]
    if "--cfg" in given:
        del given[given.index("--cfg") : given.index("--cfg") + 2]
    if ">" in given:
        del given[given.index(">") :]
    configured = [argument.partition("=")[2] for argument in given if argument.startswith("--config-name=")]
    given = [argument for argument in given if argument != "--resolve" and not argument.startswith("--config-name=")]
    if any(argument.startswith(WRITTEN_BY_THE_READER) for argument in given):
        # These are run as they stand by tests/test_own_data.py, test_own_parts below and tests/sweeps.
        given = [argument for argument in given if not argument.startswith(("--config-dir", *WRITTEN_BY_THE_READER))]
        given = [argument for argument in given if argument not in ("mine", ".") and "=small" not in argument]
        given = [argument for argument in given if argument.partition("=")[2] not in ("coarse", "sure", "shaded")]
    plugin.register()
    with hydra.initialize_config_dir(str(entry.config_folder())):
        cfg = hydra.compose((configured or [command])[0], first_of_each(given))
    cfg = settings.options_of(cfg, command, CHECKS[command])
    # Which evaluate takes, and checks, apart.
    apart = ("hydra", "dataset") if command == "evaluate" else ("hydra",)
    cfg = OmegaConf.masked_copy(cfg, [key for key in cfg if key not in apart])
    if cfg.get("sweep") is not None:
        cfg.sweep.trial = 0
    settings.check(cfg, CHECKS[command])


def test_what_the_pipeline_is_documented_to_compose_is_another_configuration():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    given = dict.fromkeys(re.findall(r"dvc exp run[^`\n]*", text))
    options = {option for command in given for option in re.findall(r"-S (\S+=\S+)", command)}
    groups = {option for option in options if (REPOSITORY / "conf" / option.partition("=")[0]).is_dir()}
    assert len(groups) > 2
    with hydra.initialize_config_dir(str(entry.config_folder())):
        usual = hydra.compose("pipeline")
        assert not [option for option in groups if hydra.compose("pipeline", [option]) == usual]
        # Which names what is there already, and is taken all the same.
        assert hydra.compose("pipeline", ["backbone=mobilenetv2"]) == usual


def blocks(page: str) -> dict[str, str]:
    """Fenced blocks that begin with the path of a file, by that path."""
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    found = re.findall(r"```(?:python|yaml)\n(# (\S+\.(?:py|yaml))\n.*?)```", text, re.DOTALL)
    return {path: block for block, path in found}


def test_own_parts_train_as_the_page_has_them(tmp_path, clothseg):
    written = blocks("own_parts.md")
    assert len(written) == 5
    for path, block in written.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(block, encoding="utf-8")
    ((arguments,),) = [
        [arguments for page, _, arguments in commands() if page == "own_parts.md" and "--config-dir" in arguments]
    ]
    tiny = ("dataset=paperdoll", "dataset.count=16", "image_size=[64,32]", "batch_size=4", "schedule=one_phase",
            "schedule.phases.training.epochs=1", "evaluation.native=false", "tracking.log_model=false")  # fmt: skip
    trusted = {"CLOTHSEG_TARGETS": "my_parts.*"}
    done = clothseg("train", *shlex.split(arguments), *tiny, folder=tmp_path, **trusted)
    assert done.returncode == 0, done.stderr
    assert "clothing mIoU" in done.stdout


@cache
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", REPOSITORY / "docs" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["reference"] = module
    spec.loader.exec_module(module)
    return module


def test_every_option_has_a_meaning():
    made = reference()
    silent = [
        f"{command}.{one.name}" for command in made.COMMANDS for one in made.of_command(command) if not one.meaning
    ]
    for group in made.GROUPS:
        if group in made.AS_THEY_ARE or group == "backbone":
            continue
        for name, own in made.of_group(group).items():
            if not made.about(made.CONF / group / f"{name}.yaml"):
                silent.append(f"{group}={name}")
            silent += [f"{group}={name}: {one.name}" for one in own if not one.meaning]
    assert silent == []


def test_every_group_and_every_command_is_in_the_reference():
    made = reference()
    folders = {path.relative_to(made.CONF).as_posix() for path in made.CONF.rglob("*") if path.is_dir()}
    assert folders - {"experiment", "hydra", "hydra/help", "hydra/sweeper"} == set(made.GROUPS)
    assert {path.stem for path in (made.CONF / "hydra" / "help").glob("*.yaml")} == set(made.COMMANDS)


def test_options_are_read_as_they_are_written(tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text(
        "# About the file.\n# @package x\n_target_: a.b\n# Above it,\n# on two lines.\nfirst: [1, 2]\n"
        "second: 3  # beside it\npart:\n  # of a part\n  third: null\n\n  fourth: {}\n"
        "# of all in it\nwhole:\n  fifth: one:two\n"
    )
    made = reference()
    assert made.about(path) == ["About the file."]
    assert [(one.name, one.default, one.meaning) for one in made.options(path)] == [
        ("first", "[1, 2]", "Above it, on two lines."),
        ("second", "3", "Beside it"),
        ("part.third", "null", "Of a part"),
        ("part.fourth", "{}", ""),
        ("whole.fifth", "one:two", "Of all in it"),
    ]


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
            if not target.startswith(("http", "reference/")):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_pages_of_the_reference_can_be_made():
    code = "import reference as r; print(len(r.groups_page()), len(r.commands_page()), len(r.experiments_page()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY / "docs", capture_output=True, text=True, check=True
    )
    assert all(int(length) > 2000 for length in done.stdout.split())
