"""What all entry points share: finding the configuration, and telling the user's errors on one line.

Importing this module loads Hydra and nothing heavier.
"""

from __future__ import annotations

import errno
import functools
import gc
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NoReturn

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from clothseg.checks import suggestion
from clothseg.errors import UserError

# What a configuration may name in `_target_`. A configuration from a stranger runs nothing else: of this package only
# what conf/ builds, as it has functions too that fetch, write or unpickle.
# Hydra checks by the name written there and by the name under which the object was defined (Keras's own are in
# keras.src, whose `deserialize` and `get` are left out).
TARGETS = [
    "clothseg.data.augmentation.fixed.FixedCopies",
    "clothseg.data.augmentation.random.RandomAugmentation",
    "clothseg.data.ccp.Ccp",
    "clothseg.data.kaggle.Kaggle",
    "clothseg.data.paired.PairedFolders",
    "clothseg.data.paperdoll.Paperdoll",
    "clothseg.data.sampling.repeat_factor",
    "clothseg.data.sampling.uniform",
    "clothseg.models.decoders.*",
    # Of whose functions some make classes, by which Hydra checks too.
    "clothseg.training.losses.*",
    "clothseg.training.rates.*",
    "keras.losses.*",
    "keras.src.losses.losses.*",
    "keras.optimizers.*",
    *(
        f"keras.src.optimizers.{name}.*"
        for name in (
            "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw", "ftrl", "lamb", "lion",
            "loss_scale_optimizer", "multi_optimizer", "muon", "nadam", "rmsprop", "schedule_free_adamw", "sgd",
        )
    ),
    "keras.src.models.sequential.Sequential",
    # What the schedules of `rates` are where they have no warm-up.
    "keras.src.optimizers.schedules.learning_rate_schedule.CosineDecay",
    "keras.src.optimizers.schedules.learning_rate_schedule.PolynomialDecay",
    "optuna.pruners.*",
    "tensorflow_examples.models.pix2pix.pix2pix.upsample",
]  # fmt: skip

# What a configuration may put into the environment of its job by `hydra.job.env_set`. Other variables say which code is
# trusted, which programs and libraries are loaded, and where runs are sent.
ENVIRONMENT = ("CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES", "JAX_PLATFORMS", "KERAS_BACKEND", "OMP_NUM_THREADS", "TF_*")

OBJECTS_BETWEEN_COLLECTIONS = 10_000

# What a disk, or whoever owns a folder, answers to what is written, and what would work.
NOT_WRITTEN = {
    errno.ENOSPC: "make room, or work in a folder on another disk",
    errno.EDQUOT: "make room, or work in a folder on another disk",
    errno.EROFS: "work in another folder, or name one for what is written",
    errno.EACCES: "work in a folder of your own, or name one for what is written",
    errno.EPERM: "work in a folder of your own, or name one for what is written",
}


def config_folder() -> Path:
    """The configuration: inside the package where a wheel was installed, else beside it in the checkout."""
    package = Path(__file__).resolve().parent
    return next(folder for folder in (package / "conf", package.parent / "conf") if folder.is_dir())


def run(
    task: Callable[[DictConfig], Any],
    *,
    config_name: str,
    arguments: Callable[[list[str]], list[str]] = lambda given: given,
) -> None:
    """Composes the configuration from the command line, as `arguments` makes it, and runs `task` with it.

    Ends the process with status 2 and one line on the standard error where the user can put something right, with 130
    after Ctrl-C. A fault of ours keeps its traceback, and so does everything under HYDRA_FULL_ERROR=1.
    """
    # What is imported and traced into graphs, hundreds of thousands of objects, stays: looking through them for garbage
    # after every 700 new ones takes a tenth of a start.
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    # TensorFlow and oneDNN report on themselves, some of it as errors; true errors still come through, as exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # MLflow draws a bar for every single file.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # So do matplotlib, of fonts it found, and JAX, of accelerators it did not find.
    for chatty in ("matplotlib.font_manager", "jax._src.xla_bridge"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    full_error = os.environ.get("HYDRA_FULL_ERROR") == "1"

    begun = False

    @functools.wraps(task)
    def job(cfg: DictConfig) -> Any:
        nonlocal begun
        begun = True
        try:
            _check_environment(HydraConfig.get().job.env_set)
            return task(cfg)
        except Exception as error:
            # The jobs of a multirun report to their sweeper; a single one ends before Hydra adds lines of its own.
            message = told(error)
            if full_error or message is None or HydraConfig.get().mode is RunMode.MULTIRUN:
                raise
            _end(message)

    main = hydra.main(
        config_path=str(config_folder()), config_name=config_name, execution_whitelist=[*TARGETS, *own_targets()]
    )(job)
    if full_error:
        sys.argv[1:] = arguments(sys.argv[1:])
        main()
        return
    # Hydra prints errors over several lines, unless it is asked to raise them as they are.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        sys.argv[1:] = arguments(sys.argv[1:])
        main()
    except KeyboardInterrupt:
        _end("interrupted", status=130)
    except BrokenPipeError:
        # The reader of our output has gone, as `head` does; Python must not try to write to it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        message = told(error)
        if message is None and isinstance(error, ValueError) and not begun:
            # Hydra's, of its own options.
            message = " ".join(str(error).split())
        if message is None:
            raise
        _end(message)


def compose(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """Another command's configuration, for a command that ends with it."""
    if GlobalHydra.instance().is_initialized():
        return hydra.compose(config_name, list(overrides))
    # A process in which a multirun's job runs, without Hydra itself.
    with hydra.initialize_config_dir(str(config_folder())):
        return hydra.compose(config_name, list(overrides))


def parsed(text: str) -> DictConfig:
    """The configuration that a run kept, as YAML.

    Raises:
        UserError: it is none; the message is what is wrong with it.
    """
    try:
        # A few lines of them can grow to any size, and what a run keeps has none.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise UserError("it has YAML aliases")
        cfg = OmegaConf.create(text)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
        raise UserError(f"it is no YAML: {error}") from error
    if not isinstance(cfg, DictConfig):
        raise UserError("it is no mapping of options")
    return cfg


def build(part: DictConfig) -> Any:
    """Makes what `part` names in `_target_`.

    Raises:
        UserError: the target does not take these arguments, or a configuration may not name it; names the part and
            what is wrong with it.
    """
    try:
        # Said here too: the list that `run` gives Hydra does not reach other threads and processes.
        return instantiate(part, _execution_whitelist_=[*TARGETS, *own_targets()])
    except InstantiationException as error:
        refused = _not_allowed(error)
        if refused is None:
            raise
        raise refused from None
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{part._get_full_key(None)}={part.get('_target_')}: {error}") from error


def _not_allowed(error: InstantiationException) -> UserError | None:
    """Hydra's refusal to run a target, as the user can put it right; None for its other errors."""
    text = " ".join(str(error).split())
    target, place = re.search(r"(?:Target|Reference) '([^']+)'", text), re.search(r"full_key: (\S+)", text)
    if target is None or place is None or not re.search("execution whitelist|declarative configuration", text):
        return None
    what = f"{place[1]}._target_={target[1]} is none of the parts that a configuration may name"
    if "is not in the" not in text:
        return UserError(f"{what}, as it could run anything; name one of those in conf/")
    return UserError(
        f"{what}; name one of those in conf/, or with CLOTHSEG_TARGETS={target[1]} in the environment, of what you "
        "trust"
    )


def call(part: DictConfig, made: Callable[..., Any], *arguments: Any) -> Any:
    """Calls what `part` made (with `_partial_`), with the arguments that are not the configuration's.

    Raises:
        UserError: the same as of `build`.
    """
    try:
        return made(*arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{part._get_full_key(None)}={part.get('_target_')}: {error}") from error


def told(error: BaseException) -> str | None:
    """The line that tells a user's error; None where the fault is ours."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    # What was told of on purpose says more than the trouble that it had in ending.
    message = next((str(cause) for cause in chain if isinstance(cause, UserError)), None)
    message = message or next(filter(None, map(_of_the_machine, chain)), None)
    if message is None and isinstance(error, (HydraException, OmegaConfBaseException)):
        return explain(error)
    return message


def _of_the_machine(error: BaseException) -> str | None:
    """The line that tells of a disk, a folder or a database that cannot be used; None for all else."""
    if isinstance(error, OSError) and error.errno in NOT_WRITTEN:
        # A write to an open file does not say which.
        file = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else "a file"
        what = "read or written" if error.errno in (errno.EACCES, errno.EPERM) else "written"
        return f"{file} cannot be {what}: {os.strerror(error.errno)}; {NOT_WRITTEN[error.errno]}"
    # MLflow and SQLAlchemy, which are loaded then.
    if isinstance(error, Exception) and type(error).__module__ == "mlflow.exceptions":
        from clothseg.tracking.store import cannot_track

        return str(cannot_track(error))
    if type(error).__module__ == "sqlalchemy.exc" and type(error).__name__ == "OperationalError":
        reason = " ".join(str(getattr(error, "orig", error)).split())
        return f"the database of runs, or of a sweep's studies, does not answer ({reason}); try again once it does"
    return None


def _check_environment(given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if not any(fnmatchcase(name, pattern) for pattern in ENVIRONMENT):
            raise UserError(
                f"hydra.job.env_set.{name}={value} is none of the variables that a configuration may set "
                f"({', '.join(ENVIRONMENT)}); set it before the command, if you trust it"
            )


def own_targets() -> list[str]:
    """Further targets that this user trusts: CLOTHSEG_TARGETS="mylab.losses.*,mylab.decoders.wide"."""
    return [target for target in os.environ.get("CLOTHSEG_TARGETS", "").split(",") if target]


def check_trusted(name: str, *, option: str) -> None:
    """Raise `UserError` for code, named as "module:function", that this user has not said to trust."""
    target = name.replace(":", ".")
    if not any(fnmatchcase(target, pattern) for pattern in (*TARGETS, *own_targets())):
        raise UserError(
            f"{option}={name} is code of your own, or of whoever wrote the configuration; "
            f"with CLOTHSEG_TARGETS={target} in the environment it may run"
        )


def explain(error: Exception) -> str:
    """Hydra's or OmegaConf's message on one line, with the nearest option where one was misspelt."""
    text = str(error)
    if error.__cause__ is not None and str(error.__cause__) not in text:
        text += f": {error.__cause__}"
    missing = re.search(r"Could not find '([^']+)'", text)
    options = re.search(r"Available options in '[^']*':\s*(.*)", text, re.DOTALL)
    if missing and options:
        group, _, name = missing.group(1).rpartition("/")
        available = re.findall(r"\S+", options.group(1).split("Config search path")[0])
        available = [option for option in available if not option.startswith("_")]
        if group == "hydra/launcher" and (extra := re.match("ray|submitit", name)):
            return f"{group}={name} needs pip install -e '.[{extra[0]}]'"
        hint = suggestion(name, available).replace("you mean ", f"you mean {group}=")
        return f"{group}={name} does not exist: {hint}{group} may be {', '.join(available)}"
    text = re.sub(r"Set the environment variable HYDRA_FULL_ERROR.*", "", text, flags=re.DOTALL)
    text = re.sub(r"\s*(object_type=\S*|reference_type=\S*)", "", text)
    return " ".join(text.split())


def _end(message: str, *, status: int = 2) -> NoReturn:
    print(f"clothseg: {message}", file=sys.stderr)
    sys.exit(status)


@contextmanager
def lines_begin(text: str) -> Iterator[None]:
    """Puts a text before all that is logged meanwhile."""

    def mark(record: logging.LogRecord) -> bool:
        # Every handler is shown the same record.
        if not hasattr(record, "marked"):
            record.marked, record.msg = True, f"{text.replace('%', '%%')}: {record.msg}"
        return True

    handlers = list(logging.getLogger().handlers)
    for handler in handlers:
        handler.addFilter(mark)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(mark)


def flatten(cfg: DictConfig) -> dict[str, Any]:
    """Every value of a configuration under its dotted name, interpolations resolved, lists as one value."""

    def walk(node: Any, prefix: str) -> dict[str, Any]:
        if not isinstance(node, dict):
            return {prefix: node}
        flat: dict[str, Any] = {}
        for key, value in node.items():
            flat |= walk(value, f"{prefix}.{key}" if prefix else str(key))
        return flat

    return walk(OmegaConf.to_container(cfg, resolve=True), "")
