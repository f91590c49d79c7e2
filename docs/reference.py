"""Makes the pages of the reference when the site is built: every option from `conf/`, every public function.

Run by mkdocs-gen-files; see `mkdocs.yml`. What an option is for is its comment in the yaml, above it or beside it.
Where a choice of a group says nothing about an option, what another choice of the group says holds for it too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

CONF = Path(__file__).resolve().parents[1] / "conf"
# In the order in which a training is thought of.
GROUPS = {
    "dataset": "Data sets",
    "prepare": "Preparing",
    "splitting": "Splits",
    "label_groups": "Class groups",
    "sampling": "Sampling",
    "augmentation": "Augmentation",
    "backbone": "Backbones",
    "decoder": "Decoders",
    "decoder/upsample": "Up-sampling blocks of `decoder=pix2pix`",
    "loss": "Losses",
    "optimizer": "Optimizers",
    "learning_rate": "Learning rates",
    "schedule": "Schedules",
    "sweep": "Sweeps",
    "sweep/pruner": "Pruners",
    "hydra/sweeper/sampler": "Samplers",
    "hydra/launcher": "Launchers",
}
COMMANDS = ("train", "prepare", "evaluate", "compare", "report", "predict", "register", "export", "results", "deliver")
# Files that commands share, merged into those that name them.
SHARED = {"evaluate": ["scoring"], "compare": ["comparing", "scoring"], "register": ["comparing", "scoring"],
          "report": ["scoring"]}  # fmt: skip
# Files of no command of their own, by what they are about.
BESIDES = {"study": "Sweeps", "pipeline": "The pipeline"}
# Groups whose files are lists of names, or values of other options, and are shown as they are.
AS_THEY_ARE = ("label_groups", "sweep", "hydra/sweeper/sampler", "hydra/launcher")
# What a target is called with is no choice of the user's, and hydra's own options are documented by Hydra.
LEFT_OUT = ("_target_", "_partial_", "_convert_", "_recursive_", "defaults", "hydra")
CODE = {
    "Data": ["data.source", "data.ccp", "data.paired", "data.kaggle", "data.paperdoll", "data.groups", "data.split",
             "data.sampling", "data.augmentation.contract", "data.augmentation.random", "data.augmentation.fixed"],
    "Models": ["models.backbones", "models.decoders", "models.unet"],
    "Training": ["training.losses", "training.metrics", "training.scores", "training.optimizers", "training.rates",
                 "training.class_weights", "training.averaging", "training.checkpoints", "training.phases"],
    "Evaluation": ["evaluation.native", "evaluation.bootstrap", "evaluation.boundary", "evaluation.calibration"],
}  # fmt: skip


@dataclass(frozen=True)
class Option:
    """An option of a configuration.

    Attributes:
        name: dotted.
        default: as it is written in the yaml.
        meaning: of its comment; empty where it has none.
    """

    name: str
    default: str
    meaning: str


def about(path: Path) -> list[str]:
    """The lines of comment that a file begins with, without those for Hydra."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.lstrip("# "))
    return lines


def options(path: Path) -> list[Option]:
    """Every option of a file, in its order."""
    text = path.read_text(encoding="utf-8")
    lines, node = text.splitlines(), yaml.compose(text)
    return list(_walk(node, "", lines)) if isinstance(node, yaml.MappingNode) else []


def _walk(node: yaml.MappingNode, prefix: str, lines: list[str]) -> Iterator[Option]:
    for key, value in node.value:
        if key.value in LEFT_OUT and not prefix:
            continue
        name = f"{prefix}{key.value}"
        if isinstance(value, yaml.MappingNode) and value.value and not value.flow_style:
            section = _comment(key, value, lines)
            for option in _walk(value, f"{name}.", lines):
                # The one comment of a section is that of its options.
                yield option if option.meaning or not section else replace(option, meaning=section)
        elif key.value not in LEFT_OUT:
            written = " ".join(_written(value, lines).split())
            yield Option(name, written, _comment(key, value, lines))


def _written(value: yaml.Node, lines: list[str]) -> str:
    start, end = value.start_mark, value.end_mark
    if start.line == end.line:
        return lines[start.line][start.column : end.column]
    middle = lines[start.line + 1 : end.line]
    return "\n".join([lines[start.line][start.column :], *middle, lines[end.line][: end.column]])


def _comment(key: yaml.Node, value: yaml.Node, lines: list[str]) -> str:
    beside = lines[value.end_mark.line][value.end_mark.column :] if value.start_mark.line == key.start_mark.line else ""
    if "#" in beside:
        # Few words, of which the table makes a sentence.
        text = beside.partition("#")[2].strip()
        return text[:1].upper() + text[1:]
    above, line = [], key.start_mark.line - 1
    while line >= 0 and lines[line].strip().startswith("#"):
        above.insert(0, lines[line].strip().lstrip("#").strip())
        line -= 1
    # What a file begins with is about the file. These are sentences, or begin with a value, which stays as it is typed.
    return "" if line < 0 else " ".join(above)


def choices(group: str) -> list[Path]:
    """The files of a group."""
    return sorted(path for path in (CONF / group).glob("*.yaml"))


def of_group(group: str) -> dict[str, list[Option]]:
    """The options of every choice of a group, with the meaning that any of the choices gives them."""
    found = {path.stem: options(path) for path in choices(group)}
    meanings: dict[str, str] = {}
    for option in (option for own in found.values() for option in own):
        # Of phases, whatever they are called; of parts of a sum, by the part.
        meanings.setdefault(_kind(option.name), option.meaning)
        meanings[_kind(option.name)] = meanings[_kind(option.name)] or option.meaning
    return {
        name: [option if option.meaning else replace(option, meaning=meanings[_kind(option.name)]) for option in own]
        for name, own in found.items()
    }


def _kind(name: str) -> str:
    parts = name.split(".")
    return ".".join([parts[0], "*", *parts[2:]]) if parts[0] in ("phases", "groups", "weights") else name


def of_command(command: str) -> list[Option]:
    """The options of a command's own files."""
    files = [command, *SHARED.get(command, [])]
    found: dict[str, Option] = {}
    for option in (option for name in files for option in options(CONF / f"{name}.yaml")):
        known = found.get(option.name)
        found.setdefault(option.name, option)
        if known is not None and not known.meaning:
            found[option.name] = replace(known, meaning=option.meaning)
    return list(found.values())


def besides(name: str) -> list[Option]:
    """The options of a file of no command of its own; what it tells other commands means what it means there."""
    told = {f"{name}.{command}.{one.name}": one.meaning for command in COMMANDS for one in of_command(command)}
    return [replace(one, meaning=told.get(one.name, one.meaning)) for one in options(CONF / f"{name}.yaml")]


def table(rows: list[Option]) -> list[str]:
    """Options as Markdown."""
    lines = ["| option | default | meaning |", "| --- | --- | --- |"]
    for option in rows:
        default = option.default.replace("|", "\\|")
        meaning = option.meaning.replace("|", "\\|")
        lines.append(f"| `{option.name}` | {f'`{default}`' if default else ''} | {meaning} |")
    return lines


def groups_page() -> str:
    """The page of what can be chosen by name."""
    lines = [
        "# What can be chosen",
        "",
        "Made from the files in `conf/`. A choice is made by `GROUP=NAME`, an option of it by `GROUP.OPTION=VALUE`.",
        "",
    ]
    for group, title in GROUPS.items():
        lines += [f"## {title}", ""]
        if group == "backbone":
            names = ", ".join(f"`{path.stem}`" for path in choices(group))
            lines += [f"`backbone=` is one of {names}. Their options are those of [train](commands.md).", ""]
            continue
        for name, rows in of_group(group).items():
            path = CONF / group / f"{name}.yaml"
            lines += [f"### `{group}={name}`", ""]
            if group in AS_THEY_ARE:
                lines += ["```yaml", path.read_text(encoding="utf-8").rstrip(), "```", ""]
            else:
                lines += [" ".join(about(path)), "", *(table(rows) if rows else []), ""]
    return "\n".join(lines)


def commands_page() -> str:
    """The page of the commands' own options."""
    lines = [
        "# Commands and their options",
        "",
        "Made from the files in `conf/`. `--help` of a command says the same, with values.",
        "",
    ]
    for command in COMMANDS:
        path = CONF / f"{command}.yaml"
        lines += [f"## `python -m clothseg.{command}`", "", " ".join(about(path)), "", *table(of_command(command)), ""]
    for name, title in BESIDES.items():
        lines += [f"## {title}", "", " ".join(about(CONF / f"{name}.yaml")), "", *table(besides(name)), ""]
    return "\n".join(lines)


def experiments_page() -> str:
    """The page of the experiments."""
    lines = [
        "# Experiments",
        "",
        "Made from `conf/experiment/`. Each is only its differences from `conf/train.yaml`.",
        "",
    ]
    for path in choices("experiment"):
        # The first sentences, then lines such as "Run:", and what goes on from a line before.
        lines += [f"## `experiment={path.stem}`", ""]
        for line in about(path):
            begins = line.partition(":")[0] in ("Run", "Duration", "Expect")
            lines += (
                ["", f"- {line}"]
                if begins and not lines[-1].startswith("- ")
                else [f"- {line}" if begins else f"{'  ' if lines[-1].startswith(('- ', '  ')) else ''}{line}"]
            )
        lines += [""]
    return "\n".join(lines)


def code_page(modules: list[str], title: str) -> str:
    """A page of the code's reference."""
    lines = [f"# {title}", ""]
    for module in modules:
        lines += [f"::: clothseg.{module}", ""]
    return "\n".join(lines)


def main() -> None:
    """Writes the pages into the site that is being built."""
    import mkdocs_gen_files

    pages = {"commands": commands_page(), "groups": groups_page(), "experiments": experiments_page()}
    pages |= {title.lower(): code_page(modules, title) for title, modules in CODE.items()}
    for name, page in pages.items():
        with mkdocs_gen_files.open(f"reference/{name}.md", "w") as file:
            file.write(page)
    # What pages link to outside of docs/; see docs/links.py.
    for target in sorted(set(re.findall(r"\]\(\.\./(experiments/[^)#]+)\)", _all_pages()))):
        with mkdocs_gen_files.open(target, "wb") as file:
            file.write((CONF.parent / target).read_bytes())


def _all_pages() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in (CONF.parent / "docs").glob("*.md"))


if __name__ == "<run_path>":
    main()
