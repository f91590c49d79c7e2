"""What the documentation says can be typed is what the commands take, and every option is explained."""

from __future__ import annotations

import importlib.metadata
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
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from clothseg import entry, settings
from clothseg.sweeps import plugin

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [
    REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "benchmarks" / "README.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
]  # fmt: skip
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
# What code of the pages other than commands of clothseg begins with, and the test that runs it. Commands are told apart
# at `&&`, variables that are exported one by one; what a line says after `#` is of no account.
COVERED_BY = {
    "dvc repro": "test_dvc_stages.py::test_an_edited_value_repeats_the_stages_that_use_it",
    "dvc exp run": "test_dvc_stages.py::test_another_augmentation_trains_on_the_same_prepared_photos",
    "dvc exp show": "test_dvc_stages.py::test_experiments_are_shown_side_by_side_and_can_be_taken_up",
    "dvc exp apply": "test_dvc_stages.py::test_experiments_are_shown_side_by_side_and_can_be_taken_up",
    "dvc metrics diff": "test_dvc_stages.py::test_experiments_are_shown_side_by_side_and_can_be_taken_up",
    "dvc plots diff": "test_dvc_stages.py::test_experiments_are_shown_side_by_side_and_can_be_taken_up",
    "dvc plots show": "test_dvc_stages.py::test_scores_are_metrics_and_curves_and_confusion_are_plots",
    "dvc commit": "test_dvc_stages.py::test_a_stage_whose_training_ended_elsewhere_is_done_once_committed",
    "mlflow models serve": "deployment/test_serving.py::test_a_photo_in_base64_gets_a_label_map_and_areas",
    "python -c": "deployment/test_serving.py::test_the_lines_of_the_page_are_answered",
    "curl": "deployment/test_serving.py::test_the_lines_of_the_page_are_answered",
    "model = mlflow.pyfunc": "test_train.py::test_the_logged_model_maps_raw_photos_of_any_size_to_label_maps",
    "mlflow ui": "tracking/test_ui.py::test_the_list_of_runs_has_the_scores_and_options_that_tell_trainings_apart",
    "mlflow server": "test_server.py::test_no_password_is_in_what_trainings_leave",
    "[mlflow]": "test_server.py::test_no_password_is_in_what_trainings_leave",
    "export MLFLOW_": "test_server.py::test_no_password_is_in_what_trainings_leave",
    "export CLOTHSEG_TARGETS": "test_documentation.py::test_own_parts_train_as_the_page_has_them",
    "export CLOTHSEG_STUDIES": "sweeps/test_study.py::test_a_study_is_where_the_variable_says",
    "export CLOTHSEG_DATA": "data/test_ccp.py::test_the_copy_is_found_by_variable_and_as_a_folder_inside",
    "export CLOTHSEG_CACHE": "test_dvc_stages.py::test_a_second_run_does_nothing",
    "psql postgres": "test_server.py::test_the_databases_of_a_page_belong_to_the_role_of_its_addresses",
    "mypy": "test_types.py::test_nothing_is_found",
    "# my_parts.py": "test_documentation.py::test_own_parts_train_as_the_page_has_them",
    "# mine/": "test_documentation.py::test_own_parts_train_as_the_page_has_them",
    "# conf/dataset/wardrobe.yaml": (
        "test_own_data.py::test_it_is_trained_and_scored_under_its_own_name_with_its_own_classes"
    ),
    "wardrobe/": "test_own_data.py::test_a_folder_with_a_list_of_classes_trains_as_it_is",
    "# label_groups/coats.yaml": "test_own_data.py::test_own_groups_of_classes_are_trained_on_as_the_page_has_them",
}
NOT_RUN = {
    "pip install": "`.ci/run` installs the package in a clean environment; that extras exist is tested below",
    "pytest": "this is it",
    "CLOTHSEG_LONG=1 pytest": "so is this",
    ".ci/": "what runs this",
    "mkdocs serve": "`.ci/run` builds the site",
    "pre-commit install": "would change how the reader's checkout commits",
    "python -m benchmarks": "takes from minutes to hours; tests/test_benchmarks.py has what can be told without",
    "sbatch": "needs a SLURM cluster; the command within is taken by itself",
    "labelled            predicted": "a drawing, of which tests/evaluation have the numbers",
    "precision = share": "a formula",
}
# Files and drawings: the first line of a block tells all of it.
IN_ONE_PIECE = ("[mlflow]", "# ", "wardrobe/", "model = ", "labelled ", "precision = ")


def blocks_of_code(text: str) -> Iterator[list[str]]:
    """Indented and fenced blocks, with lines that go on joined."""
    fenced, joined, block = False, "", []
    for line in [*text.splitlines(), "end"]:
        fence = line.lstrip().startswith("```")
        if not fence and (fenced or line.startswith("    ")):
            joined += line.strip()
            if joined.endswith("\\"):
                joined = joined[:-1]
                continue
            block.append(joined)
        elif block and (fence or line.strip()):
            yield block
            block = []
        fenced, joined = fenced != fence, ""


def lines_of_code(text: str) -> Iterator[str]:
    """Those of all blocks."""
    for block in blocks_of_code(text):
        yield from block


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
        # What the reader writes for these is there where they are run: in tests/test_own_data.py and test_own_parts
        # below, as the pages have it. The preset is that of a sweep, which tests/sweeps/test_sweeper.py runs.
        given = [argument for argument in given if not argument.startswith(("--config-dir", *WRITTEN_BY_THE_READER))]
        given = [argument for argument in given if argument not in ("mine", ".") and "=small" not in argument]
        given = [argument for argument in given if argument.partition("=")[2] not in ("coarse", "sure", "shaded")]
    cfg = composed((configured or [command])[0], *first_of_each(given))
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


def are_options(code: str) -> bool:
    """Whether nothing else is in it, as in `dataset=kaggle dataset.root=FOLDER`."""
    try:
        given = shlex.split(code)
    except ValueError:
        return False
    return bool(given) and all(re.match(r"\+{0,2}[a-z][\w./@]*=", argument) for argument in given)


@cache
def options_named() -> tuple[tuple[str, str], ...]:
    """Page and options, of code in the midst of sentences and of lines that are options alone, each once."""
    found = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        sentences = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
        inline = [" ".join(code.split()).replace("\\|", "|") for code in re.findall(r"`([^`]+)`", sentences)]
        lines = [re.split(r"\s+#", line)[0] for line in lines_of_code(text)]
        for code in [*inline, *lines]:
            # As `light|strong`, of which each can be typed.
            name, _, values = code.partition("=")
            each = [f"{name}={value}" for value in values.split("|")] if "|" in values else [code]
            for one in each:
                if are_options(one):
                    found.setdefault(one, page.name)
    return tuple((page, code) for code, page in found.items())


@pytest.mark.parametrize(("page", "code"), options_named())
def test_every_option_that_pages_name_is_one(page, code):
    # A phase by any name, here one that there is.
    given = first_of_each(shlex.split(code.replace("phases.NAME", "phases.frozen")))
    commands = [("train",), ("train", "sweep=lr_batch"), *((command,) for command in CHECKS if command != "train")]
    # Composing takes long.
    taken = any(has(given, *command) for command in commands) or any(takes(given, *command) for command in commands)
    assert taken, page


def has(given: list[str], command: str, *chosen: str) -> bool:
    """Whether a command has options of these names, none of which is a choice from a group."""
    keys = [argument.partition("=")[0] for argument in given]
    cfg = composed(command, *chosen)
    absent = [key for key in keys if OmegaConf.select(cfg, key, default="absent") == "absent"]
    return not absent and not any((REPOSITORY / "conf" / key).is_dir() for key in keys)


def takes(given: list[str], command: str, *chosen: str) -> bool:
    """Whether a command can be composed with them."""
    try:
        composed(command, *chosen, *given)
    except HydraException:
        return False
    return True


@cache
def composed(command: str, *overrides: str) -> DictConfig:
    """The configuration of a command."""
    plugin.register()
    with hydra.initialize_config_dir(str(entry.config_folder())):
        return hydra.compose(command, list(overrides))


def shell(block: list[str]) -> Iterator[str]:
    """Commands of a block other than those of clothseg, without what is put before and after them."""
    for line in block:
        # That which is handed to another command in quotes is its own.
        for part in re.split(r" && | & ", re.split(r"\s+#", line)[0]):
            part = part.strip()
            if part.startswith("export "):
                yield from (f"export {variable}" for variable in re.findall(r"\w+=\S+", part))
            elif part and not re.match(r"(?:CUDA_VISIBLE_DEVICES=\d )?python -m clothseg", part):
                yield part


def test_all_other_code_is_run_by_a_test_or_there_is_a_reason():
    known = (*COVERED_BY, *NOT_RUN)
    unknown = []
    for page in PAGES:
        for block in blocks_of_code(page.read_text(encoding="utf-8")):
            found = block[:1] if block[0].startswith(IN_ONE_PIECE) else shell(block)
            unknown += [
                f"{page.name}: {code}" for code in found if not code.startswith(known) and not are_options(code)
            ]
    assert unknown == []
    # Both lists are of the pages as they are.
    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [code for code in known if code.removeprefix("export ") not in pages] == []


@pytest.mark.parametrize("test", sorted(set(COVERED_BY.values())))
def test_a_test_that_is_named_for_code_of_the_pages_exists(test):
    file, _, name = test.partition("::")
    assert f"\ndef {name}(" in (REPOSITORY / "tests" / file).read_text(encoding="utf-8")


def test_extras_that_pages_install_exist():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = {name for extras in re.findall(r"(?:clothseg|\.)\[([a-z,]+)\]", text) for name in extras.split(",")}
    assert {"test", "dvc"} <= named <= set(importlib.metadata.metadata("clothseg").get_all("Provides-Extra"))


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
    silent += [f"{name}: {one.name}" for name in made.BESIDES for one in made.besides(name) if not one.meaning]
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


def test_every_file_of_options_is_on_a_page():
    made = reference()
    shown = {*made.COMMANDS, *made.BESIDES, *(name for names in made.SHARED.values() for name in names)}
    left_out = {
        # Of Hydra's own options alone.
        "folders", "console",
        # Takes all options from params.yaml.
        "stage",
    }  # fmt: skip
    assert {path.stem for path in made.CONF.glob("*.yaml")} == shown | left_out
    assert not any(made.options(made.CONF / f"{name}.yaml") for name in left_out - {"folders", "console"})
    page = made.commands_page()
    assert "| `sweep.n_trials` | `20` |" in page and "| `pipeline.report.figure_photos` | `6` |" in page


def test_a_meaning_is_shared_where_it_holds():
    made = reference()
    fixed = {name: own for name, own in made.of_group("augmentation").items() if own[0].name == "copies"}
    assert [name for name, own in fixed.items() if "rotated" in own[0].meaning] == ["article_as_printed"]
    (root,) = made.of_group("dataset")["kaggle"]
    assert "CLOTHSEG_DATA" not in root.meaning
    # What pipelines tell other commands means what it means there.
    meanings = {one.name: one.meaning for one in made.of_command("report")}
    told = {one.name: one.meaning for one in made.besides("pipeline")}
    assert told["pipeline.report.figure_photos"] == meanings["figure_photos"]


def test_options_are_read_as_they_are_written(tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text(
        "# About the file.\n# @package x\n_target_: a.b\n# Above it,\n# on two lines.\nfirst: [1, 2]\n"
        "second: 3  # beside it\npart:\n  # none or some.\n  third: none\n\n  fourth: {}\n"
        "# Of all in it\nwhole:\n  fifth: one:two\n"
    )
    made = reference()
    assert made.about(path) == ["About the file."]
    assert [(one.name, one.default, one.meaning) for one in made.options(path)] == [
        ("first", "[1, 2]", "Above it, on two lines."),
        ("second", "3", "Beside it"),
        # A value as it is typed.
        ("part.third", "none", "none or some."),
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
