"""The best trial of a study as a preset that anyone can run: `experiment=best_of_<study>`."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from clothseg import entry
from clothseg.errors import UserError

PACKAGE = "# @package _global_\n"

# How the first comment of every preset that is made here begins, by which it is known.
MARK = "The best trial of the study "

# What says where a run happens, and how its end is scored, rather than what is run.
WHERE = (
    ("dataset", "root"),
    ("splitting", "file"),
    ("prepare", "cache"),
    ("prepare", "workers"),
    ("tracking",),
    ("evaluation",),
    ("threads",),
    ("hydra",),
)

# What is the trial's alone. What a sweep sets elsewhere is kept.
DROPPED = ("sweep", "name")

# What the header says of an override that a run on another machine needs.
PLACEHOLDERS: dict[tuple[str, ...], str] = {
    ("dataset", "root"): "FOLDER",
    ("splitting", "file"): "FILE",
    ("backbone", "weights"): "FILE",
}

# A path is the keys that lead to a value: ("schedule", "phases", "frozen", "epochs").
Values = dict[tuple[Any, ...], Any]


@dataclass(frozen=True)
class Preset:
    """A preset that was written, and what a command needs beside `experiment=<its name>` to be the trial's."""

    path: Path
    overrides: list[str]


@dataclass(frozen=True)
class _Trial:
    values: Values
    # By group, with its package where that is another: optimizer, optimizer@schedule.phases.fine_tuning.optimizer.
    choices: Mapping[str, str | None]
    overrides: Sequence[Override]


def write_preset(
    folder: Path, *, name: str, overrides: Sequence[str], about: Sequence[str], duration: str, expect: str
) -> Preset:
    """Writes `folder/experiment/NAME.yaml`, which composes to the configuration that `overrides` compose to.

    It holds differences from the experiment that the trial was a variation of. Three things differ: `name`, `sweep`
    (of which only what a sweep sets elsewhere is kept), and what says where a run happens (folders, files, tracking,
    threads, Hydra's own), which stays out of the file. That the rest composes to the same, down to types and the order
    of phases, is checked before the file is put in place.

    Args:
        folder: of configuration; need not be the package's own.
        name: of the preset: letters, digits, `_`, `-` and `.`.
        overrides: of the trial, as on the command line, without sweeps over several values. With Hydra's own among
            them: groups are also looked for where `hydra.searchpath` says.
        about: lines of comment, the first of which begins with `MARK`.
        duration: of the training, for the header.
        expect: the scores, for the header.

    Returns:
        Where it is, and those of the overrides that were left out of it.

    Raises:
        UserError: the name cannot be a preset's or is that of a preset that was not made here, the overrides do not
            compose or come to something that a preset cannot say, or the folder cannot be written to.
    """
    if not about or not about[0].startswith(MARK):
        raise ValueError(f"about must begin with {MARK!r}: {about}")
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UserError(f"experiment={name} cannot be a preset: letters, digits, _, - and . can be in its name")
    path = folder / "experiment" / f"{name}.yaml"
    if not _may_be_written(path):
        raise UserError(f"{path} is not the best trial of a study and is not replaced; sweep.study_name names another")
    parsed = [piece for override in _parse(overrides) for piece in _pieces(override)]
    elsewhere = [override for override in parsed if _says_where(_path(override), override.value())]
    kept = [override for override in parsed if override not in elsewhere]
    command = ["python -m clothseg.train", f"experiment={name}", *_placeholders(elsewhere)]
    header = [
        *about,
        f"Run:      {' '.join(command)}",
        f"Duration: {duration}",
        f"Expect:   {expect}",
    ]
    search = [_line(override) for override in elsewhere if _path(override) == ("hydra", "searchpath")]
    try:
        with _hydra():
            text = _text_of(kept, name=name, header=header, search=search)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"the best trial does not compose: {entry.explain(error)}") from error
    _write(path, text)
    return Preset(path, [_line(override) for override in elsewhere])


# Overrides


def _parse(overrides: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise UserError(f"the best trial does not compose: {entry.explain(error)}") from error


def _pieces(override: Override) -> Iterator[Override]:
    """The override, or one for each key of its dictionary, where some of it says where and the rest says what."""
    value, path = override._value, _path(override)
    if (
        not isinstance(value, dict)
        or _is_where(path)
        or not _says_where(path, override.value())
        or override.is_delete()
    ):
        yield override
        return
    for key, part in value.items():
        inner = f"{override.key_or_group}.{key.text if isinstance(key, QuotedString) else key}"
        # What a dictionary brings may be new to the configuration.
        yield from _pieces(
            replace(override, type=OverrideType.FORCE_ADD, key_or_group=inner, _value=part, input_line=None)
        )


def _line(override: Override) -> str:
    return override.input_line or f"{override.get_key_element()}={override.get_value_element_as_str()}"


def _path(override: Override) -> tuple[str, ...]:
    return tuple(part for part in re.split(r"[./\[\]]", override.key_or_group) if part)


def _is_where(path: tuple[Any, ...]) -> bool:
    return any(path[: len(where)] == where for where in WHERE)


def _says_where(path: tuple[Any, ...], value: Any) -> bool:
    """Whether any of it says where a run happens."""
    if path[0] in DROPPED:
        return False
    if _is_where(path):
        return True
    if isinstance(value, dict):
        return any(_says_where((*path, key), part) for key, part in value.items())
    if path == ("backbone", "weights"):
        return value not in (None, "imagenet")
    return _is_of_this_machine(value)


def _is_of_this_machine(value: Any) -> bool:
    """Whether there is an absolute path in it."""
    if isinstance(value, (list, dict)):
        return any(_is_of_this_machine(part) for part in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and (
        value.startswith(("~", "file:")) or PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute()
    )


def _placeholders(elsewhere: Sequence[Override]) -> list[str]:
    """The overrides that a run on another machine needs too, without their values."""
    needed = {
        override.get_key_element(): PLACEHOLDERS.get(_path(override), "PATH")
        for override in elsewhere
        if not override.is_delete() and (_path(override) in PLACEHOLDERS or not _is_where(_path(override)))
    }
    return [f"{key}={value}" for key, value in needed.items()]


# Composition


@contextmanager
def _hydra() -> Iterator[None]:
    """The running Hydra, which knows the command's folders of configuration, or one of our own."""
    if GlobalHydra.instance().is_initialized():
        yield
        return
    from clothseg.sweeps import plugin

    with hydra.initialize_config_dir(str(entry.config_folder())):
        plugin.register()
        yield


def _compose(overrides: Sequence[str]) -> DictConfig:
    return hydra.compose("train", list(overrides), return_hydra_config=True)


def _values(cfg: DictConfig) -> Values:
    """Every value that is to be the trial's, interpolations as they are written."""

    def walk(node: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
        if isinstance(node, dict) and node:
            for key, value in node.items():
                yield from walk(value, (*path, key))
        else:
            yield path, node

    content: Any = OmegaConf.to_container(cfg)
    return dict(walk({key: part for key, part in content.items() if key not in (*DROPPED, "hydra")}, ()))


def _differing(wanted: Values, given: Values) -> set[str]:
    """The top-level keys below which something differs, be it a type or the order."""

    def sections(values: Values) -> dict[str, list[tuple[Any, str]]]:
        below: dict[str, list[tuple[Any, str]]] = {}
        for path, value in values.items():
            if not _is_where(path):
                below.setdefault(path[0], []).append((path, repr(value)))
        return below

    ours, theirs = sections(wanted), sections(given)
    return {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}


@contextmanager
def _scratch(name: str, searchpath: Sequence[str]) -> Iterator[Callable[[str], DictConfig]]:
    """Composes the text of a preset without it being in place."""
    with tempfile.TemporaryDirectory() as folder:
        # Another name than the preset's, whose predecessor may be in the way.
        draft = Path(folder) / "experiment" / f"draft_of_{name}.yaml"
        draft.parent.mkdir()
        search = json.dumps([*searchpath, f"file://{folder}"], ensure_ascii=False)

        def compose(text: str) -> DictConfig:
            draft.write_text(text, encoding="utf-8")
            return _compose([f"hydra.searchpath={search}", f"experiment={draft.stem}"])

        yield compose


def _text_of(kept: Sequence[Override], *, name: str, header: Sequence[str], search: Sequence[str]) -> str:
    """The preset that composes as `kept` do."""
    composed = _compose([*search, *map(_line, kept)])
    choices = composed.hydra.runtime.choices
    own = [override for override in kept if _path(override)[0] not in (*DROPPED, "experiment")]
    trial = _Trial(_values(composed), choices, own)
    experiment = choices.get("experiment")
    with _scratch(name, composed.hydra.searchpath or []) as compose:
        # A preset cannot be based on itself. Without the experiment where that brings back what the trial deleted.
        for base in dict.fromkeys((experiment if experiment != name else None, None)):
            text = _text_based_on(base, trial, name=name, header=header, compose=compose)
            if text is not None:
                return text
    reasons = [override for override in own if override.is_delete()] or own
    raise UserError(f"no preset comes to the same as {' '.join(map(_line, reasons))}")


def _text_based_on(
    base: str | None,
    trial: _Trial,
    *,
    name: str,
    header: Sequence[str],
    compose: Callable[[str], DictConfig],
) -> str | None:
    """The preset as differences from `base`; None where they cannot be said."""
    whole: set[str] = set()
    while True:
        defaults = _defaults(base, trial, whole=whole)
        try:
            given = compose(_text(header, defaults, {}))
        except HydraException:
            # Without the experiment, an option of what it added cannot be chosen.
            return None
        text = _text(header, defaults, {"name": name} | _changes(trial, _values(given)))
        differing = _differing(trial.values, _values(compose(text)))
        if not differing:
            return text
        # Merging cannot delete. A section in which something was deleted is written whole, its group set to null.
        further = (differing & set(given.hydra.runtime.choices)) - whole
        if not further:
            return None
        whole |= further


def _defaults(base: str | None, trial: _Trial, *, whole: Collection[str]) -> list[Any]:
    """The defaults list: the experiment it is based on, and the options chosen beside it."""
    added: dict[str, str | None] = {}
    chosen: dict[str, str | None] = {}
    if base is None:
        outer = [key for key in trial.choices if not re.search("[/@]", key)]
        chosen = {key: trial.choices[key] for key in outer if key not in (*DROPPED, "experiment")}
    for override in trial.overrides:
        key = override.get_key_element().lstrip("+~")
        if key in trial.choices and not override.is_delete() and not isinstance(override.value(), dict):
            (added if override.is_add() else chosen)[key] = trial.choices[key]
    return [
        *([base] if base is not None else []),
        *({f"/{key}": value} for key, value in added.items() if _section(key) not in whole),
        *(
            {f"override /{key}": value}
            for key, value in chosen.items()
            if key not in added and _section(key) not in whole
        ),
        *({f"override /{section}": None} for section in sorted(whole) if section not in added),
    ]


def _section(key: str) -> str:
    """The top-level key below which the options of a group are."""
    group, _, package = key.partition("@")
    return re.split("[./]", package or group)[0]


def _changes(trial: _Trial, given: Values) -> dict[str, Any]:
    """What is to be merged over `given`: whatever differs, and what the trial's overrides state in any case."""
    changes: dict[str, Any] = {}
    stated = {_path(override) for override in trial.overrides}
    for path, value in trial.values.items():
        same = path in given and (_is_where(path) or repr(value) == repr(given[path]))
        if same and path not in stated:
            continue
        if _is_of_this_machine(value):
            raise UserError(f"{'.'.join(map(str, path))}={value} is of this machine alone and cannot be in a preset")
        node = changes
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = value
    return changes


# The file


def _text(header: Sequence[str], defaults: Sequence[Any], body: Mapping[str, Any]) -> str:
    # A comment ends with its line, whatever a study is called.
    comments = "".join(f"# {' '.join(line.splitlines())}\n" for line in header)
    parts = ({"defaults": [*defaults]} if defaults else {}, dict(body))
    return PACKAGE + comments + "\n".join(OmegaConf.to_yaml(part) for part in parts if part)


def _may_be_written(path: Path) -> bool:
    try:
        return not path.exists() or path.read_text(encoding="utf-8", errors="replace").startswith(f"{PACKAGE}# {MARK}")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; sweep.presets names another folder") from error


def _write(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; sweep.presets names another folder") from error
