"""The plain values of a training configuration, checked before anything heavy is loaded.

Parts that are built from a `_target_` (data set, augmentation, decoder, loss, optimizer) check their own arguments.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf, open_dict
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from clothseg.errors import UserError

# What counts and sizes are given to takes no larger numbers.
Size = Annotated[int, Field(gt=0, lt=2**31)]
Side = Annotated[int, Field(gt=0, le=8192)]
Part = dict[str, Any]
# MLflow's own rule is wider, but not all of it can be written as models:/NAME@ALIAS.
ModelName = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]


class _Section(BaseModel):
    # Strict: true is no number, and "3" none either.
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Prepare(_Section):
    """How photos and labels are decoded and resized, once."""

    resize: Literal["squash", "pad"]
    label_resize: Literal["nearest", "bilinear"]
    skip_invalid: bool
    cache: str | None
    workers: Size | None


class Splitting(_Section):
    """Which photos are trained on and which are kept for scoring."""

    validation: Annotated[float, Field(gt=0, lt=1)]
    test: Annotated[float, Field(ge=0, lt=1)]
    random_state: Annotated[int, Field(ge=0, lt=2**32)]
    file: str | None
    group_distance: Annotated[int, Field(ge=0, le=64)] | None


class Backbone(_Section):
    """The pretrained encoder."""

    name: str
    weights: str | None
    input_scaling: Literal["matched", "unit"]
    batch_norm_momentum: Annotated[float, Field(ge=0, lt=1)] | None


class PhaseSettings(_Section):
    """One phase of training; what is None is taken from the rest of the configuration."""

    epochs: Size
    encoder: Literal["frozen", "trainable"]
    batch_norm: Literal["frozen", "trainable"]
    encoder_rate: Annotated[float, Field(gt=0)]
    image_size: Annotated[list[Side], Field(min_length=2, max_length=2)] | None
    steps_per_epoch: Size | Literal["photos"] | None
    validation_steps: Size | None
    learning_rate: Annotated[float, Field(gt=0)] | None
    optimizer: Part | None


class Schedule(_Section):
    """The phases, in their order."""

    restart_data: bool
    learning_rate_over: Literal["phase", "training"]
    phases: Annotated[dict[str, PhaseSettings], Field(min_length=1)]


class Tracking(_Section):
    """How the run appears in MLflow."""

    experiment: Annotated[str, Field(min_length=1)]
    run_name: str | None
    tags: dict[str, Any]
    log_model: bool
    figures: bool
    figure_photos: Annotated[int, Field(ge=1, le=50)]
    patience: Annotated[float, Field(ge=0)]


Score = Literal[
    "val/accuracy",
    "val/miou",
    "val/clothing_miou",
    "val/mean_recall",
    "val/clothing_accuracy",
    "val/frequency_weighted_iou",
    "val/dice",
]


class LabelGroups(_Section):
    """Into which groups the classes of the data set are merged; without groups they stay as they are."""

    name: Annotated[str, Field(min_length=1)]
    groups: dict[str, list[str] | None] | None
    rest: str | None


class EarlyStopping(_Section):
    """When a phase ends before its last epoch."""

    patience: Size | None


class Divergence(_Section):
    """What happens when the loss is no longer a number."""

    rollbacks: Annotated[int, Field(ge=0)]
    rate_factor: Annotated[float, Field(gt=0, lt=1)]


class Presence(_Section):
    """The auxiliary head that tells which classes are in a photo."""

    weight: Annotated[float, Field(ge=0)]
    gate: Annotated[float, Field(ge=0)]


class EvaluationOptions(_Section):
    """How a network is scored at the photos' own sizes."""

    flip: bool
    adjustment: Annotated[float, Field(ge=0)]
    tags: Literal["given"] | None
    boundary: bool


class Evaluation(EvaluationOptions):
    """How the trained network is scored at the photos' own sizes, if it is."""

    native: bool
    batch_size: Size


class Sweep(_Section):
    """The study that a run is a trial of."""

    space: str
    study_name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
    storage: Annotated[str, Field(min_length=1)]
    n_trials: Size
    n_jobs: Size | None
    objectives: Annotated[list[Score | Literal["inference/milliseconds_per_photo"]], Field(min_length=1, max_length=2)]
    direction: Literal["maximize", "minimize"] | list[Literal["maximize", "minimize"]]
    baseline: dict[str, Any] | None
    params: dict[str, str]
    pruner: Part
    max_failures: Size
    max_failure_rate: Annotated[float, Field(ge=0, le=1)]
    grace_period: Size
    presets: str | None
    trial: Annotated[int, Field(ge=0)] | None


class _DataSettings(_Section):
    dataset: Part
    label_groups: LabelGroups
    splitting: Splitting
    image_size: Annotated[list[Side], Field(min_length=2, max_length=2)]
    prepare: Prepare

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image_size[0], self.image_size[1]


class PrepareSettings(_DataSettings):
    """Everything `python -m clothseg.prepare` is told."""

    duplicate_distance: Annotated[int, Field(ge=0, le=64)]
    output: str | None
    kaggle_output: str | None


class ResultsSettings(_Section):
    """Everything `python -m clothseg.results` is told."""

    run: str | None
    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")] | None
    series: Annotated[str, Field(pattern=r"^\w[\w.-]*$")] | None
    cumulative: bool
    experiments: Annotated[str, Field(min_length=1)]


class DeliverSettings(_Section):
    """Everything `python -m clothseg.deliver` is told."""

    folder: str | None
    patience: Annotated[float, Field(ge=0)]


class _Trainings(_Section):
    """How photos are put through what was trained."""

    weights: Literal["last", "best"] | None
    scales: Annotated[list[Annotated[float, Field(gt=0, le=8)]], Field(min_length=1)]


class _Averaged(_Section):
    """One training, or several that are averaged."""

    run: str | Annotated[list[str], Field(min_length=1)]

    @property
    def runs(self) -> list[str]:
        """What the trainings are called."""
        return [self.run] if isinstance(self.run, str) else self.run


class Scoring(EvaluationOptions, _Trainings):
    """How trainings are scored, whether together or against each other."""

    split: Literal["val", "test", "train"]
    root: str | None
    label_groups: LabelGroups
    output: str | None
    figure_photos: Annotated[int, Field(ge=0, le=50)]
    batch_size: Size | None


class EvaluateSettings(Scoring, _Averaged):
    """Everything `python -m clothseg.evaluate` is told, but for another data set."""


class PredictSettings(_Trainings, _Averaged):
    """Everything `python -m clothseg.predict` is told."""

    engine: Literal["openvino", "onnxruntime"] | None
    precision: Literal["float32", "bfloat16"] | None
    photos: str | Annotated[list[str], Field(min_length=1)]
    output: Annotated[str, Field(min_length=1)]
    flip: bool
    overlays: bool
    batch_size: Size

    @property
    def files(self) -> list[str]:
        """Files and folders."""
        return [self.photos] if isinstance(self.photos, str) else self.photos


class ExportSettings(_Section):
    """Everything `python -m clothseg.export` is told."""

    run: str
    format: Literal["saved_model", "onnx", "litert", "keras"]
    quantize: Literal["float16", "int8"] | None
    output: Annotated[str, Field(min_length=1)]
    weights: Literal["last", "best"] | None
    root: str | None
    split: Literal["val", "test", "train"]
    photos: Size
    calibration: Size


class Comparing(Scoring):
    """How trainings are scored against each other."""

    draws: Annotated[int, Field(ge=100, le=1_000_000)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    seed: Annotated[int, Field(ge=0)]


class ReportSettings(Scoring):
    """Everything `python -m clothseg.report` is told."""

    # As many as the page has colours for.
    runs: Annotated[
        list[str],
        Field(min_length=1, max_length=5),
        BeforeValidator(lambda given: [given] if isinstance(given, str) else given),
    ]


class CompareSettings(Comparing):
    """Everything `python -m clothseg.compare` is told."""

    runs: Annotated[list[str], Field(min_length=2)]


class RegisterSettings(Comparing):
    """Everything `python -m clothseg.register` is told."""

    run: str
    name: ModelName


class TrainSettings(_DataSettings):
    """Everything `python -m clothseg.train` is told."""

    name: Annotated[str, Field(min_length=1)]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    batch_size: Size
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
    devices: Size
    threads: Size | None
    deterministic: bool
    jit_compile: bool | Literal["auto"]
    fused_layers: bool
    gradient_checkpointing: bool
    best_metric: Score
    keep: Literal["last", "best"]
    divergence: Divergence
    early_stopping: EarlyStopping
    evaluation: Evaluation
    tracking: Tracking
    augmentation: Part
    backbone: Backbone
    decoder: Part
    loss: Part
    presence: Presence
    sampling: Part
    optimizer: Part
    learning_rate: Part
    schedule: Schedule
    folds: Annotated[int, Field(ge=2)] | None
    resume: Annotated[str, Field(min_length=1)] | None
    # As an attribute it is one of Python's own classes.
    register_as: Annotated[ModelName | None, Field(alias="register")]
    output: Annotated[str, Field(min_length=1)] | None
    sweep: Sweep | None


def check(cfg: DictConfig, model: type[BaseModel]) -> Any:
    """The configuration as plain, typed values.

    Raises:
        UserError: names the first option that is wrong, the value received and what would be accepted.
    """
    given = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    _check_text(given, "")
    try:
        return model.model_validate(given)
    except ValidationError as error:
        problems = error.errors()
        # A union reports once for each of its members.
        location = _option(problems[0])
        same = [problem for problem in problems if _option(problem) == location]
        wanted = " or ".join(dict.fromkeys(problem["msg"][0].lower() + problem["msg"][1:] for problem in same))
        others = len({_option(problem) for problem in problems}) - 1
        more = f" (and {others} more)" if others else ""
        given = "" if problems[0]["type"] == "missing" else f"={_shown(problems[0]['input'])}"
        raise UserError(f"{location}{given}: {wanted}{more}") from None


def options_of(cfg: DictConfig, command: str, model: type[BaseModel]) -> DictConfig:
    """What a command is told by the configuration of a whole pipeline; any other configuration as it is.

    Args:
        cfg: of a pipeline if it has a section `pipeline`, in which commands have sections of their own.
        command: its name there.
        model: what it is checked by; options that are not in it are other commands'.
    """
    if "pipeline" not in cfg:
        return cfg
    names = {field.alias or name for name, field in model.model_fields.items()}
    mine = OmegaConf.masked_copy(cfg, [key for key in cfg if key in names])
    with open_dict(mine):
        mine.merge_with(cfg.pipeline.get(command, {}))
    return mine


def _check_text(value: Any, option: str) -> None:
    """Raises `UserError` for text that no file and no file's name can hold: a zero byte, or half of a character."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_text(key, f"{option}.{key}" if option else str(key))
            _check_text(inner, f"{option}.{key}" if option else str(key))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            _check_text(inner, f"{option}.{place}")
    elif isinstance(value, str) and ("\0" in value or any("\ud800" <= character <= "\udfff" for character in value)):
        raise UserError(f"{ascii(option)[1:-1]}={_shown(ascii(value))}: text has a character that is none in UTF-8")


def _option(problem: Any) -> str:
    # Members of a union are appended to the location by pydantic; options are lower-case names and numbers.
    tags = {"int", "float", "bool", "str", "none", "constrained-int", "constrained-float"}
    parts = [str(part) for part in problem["loc"]]
    while len(parts) > 1 and (parts[-1] in tags or "[" in parts[-1]):
        parts.pop()
    return ".".join(parts)


def _shown(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
