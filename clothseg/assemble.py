"""The data, the network, the loss and the phases that a configuration describes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig

from clothseg import entry
from clothseg.data.groups import group_labels
from clothseg.data.prepared import Prepared
from clothseg.data.source import Source
from clothseg.data.split import Split
from clothseg.errors import UserError
from clothseg.machine import tensorflow_on_processor
from clothseg.models.backbones import check_download, check_encoder
from clothseg.settings import EvaluationOptions, PhaseSettings, TrainSettings
from clothseg.stages import fold_dataset, prepare_dataset, split_dataset

if TYPE_CHECKING:
    from clothseg.data.augmentation.contract import Augmentation
    from clothseg.evaluation.native import Evaluator, Scored
    from clothseg.evaluation.predictor import Member
    from clothseg.models.unet import Network
    from clothseg.training.phases import Phase

Size = tuple[int, int]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Data:
    """What is trained and scored on.

    Attributes:
        source: where the photos come from, at their own sizes.
        prepared: them and their labels, at every size that a phase trains at.
        parts: which of them are for what.
        size: that of the last phase, which the trained network has.
        table: uint8 (256,), from a class of the source to its group; None where classes stay as they are.
    """

    source: Source
    prepared: Mapping[Size, Prepared]
    parts: Split
    size: Size
    table: np.ndarray | None

    @property
    def final(self) -> Prepared:
        """The photos at the size of the trained network."""
        return self.prepared[self.size]

    def read(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """One photo and its labels at its own size, in groups as those trained on.

        Returns:
            uint8 (own height, own width, 3) in 0..255, and uint8 (own height, own width).
        """
        photo, labels = self.source.read(self.final.names[row])
        return photo, labels if self.table is None else self.table[labels]


def sizes(settings: TrainSettings) -> list[Size]:
    """Height and width of every phase."""
    return [_size(phase, settings) for phase in settings.schedule.phases.values()]


def _size(phase: PhaseSettings, settings: TrainSettings) -> Size:
    return settings.size if phase.image_size is None else (phase.image_size[0], phase.image_size[1])


def data(cfg: DictConfig, settings: TrainSettings) -> Data:
    """The photos, prepared, in their groups of classes and split.

    Raises:
        UserError: an encoder, a size or a file of weights cannot be, or the data cannot be had.
    """
    return _data(cfg, settings, lambda final: [split_dataset(final, settings)])[0]


def folds(cfg: DictConfig, settings: TrainSettings, *, count: int) -> list[Data]:
    """The same photos in the splits of cross-validation; see `Split.folds`.

    Raises:
        UserError: as of `data`, and for more folds than photos.
    """
    return _data(cfg, settings, lambda final: fold_dataset(final, settings, count=count))


def _data(cfg: DictConfig, settings: TrainSettings, cut: Callable[[Prepared], list[Split]]) -> list[Data]:
    wanted = sizes(settings)
    for size in wanted:
        check_backbone(settings, size=size, weights=settings.backbone.weights)
    source = entry.build(cfg.dataset)
    source.names()
    if settings.backbone.weights == "imagenet":
        check_download(settings.backbone.name)
    prepared = {size: prepare_dataset(source, settings, size=size) for size in dict.fromkeys(wanted)}
    final = prepared[wanted[-1]]
    for other in prepared.values():
        if other.names != final.names:
            raise UserError(
                "photos that can be used at one size cannot at another; mend what prepare.skip_invalid left out"
            )
    groups = settings.label_groups
    table = None
    if groups.groups is not None:
        table = group_labels(source.class_names, groups.groups, rest=groups.rest)[1]
    return [Data(source, prepared, parts, wanted[-1], table) for parts in cut(final)]


@dataclass(frozen=True)
class Batches:
    """The batches of every phase.

    Attributes:
        data: photos and labels.
        augmentation: of the training photos.
        weights: float (m,), how often each training photo is shown relative to the others, or None.
        batch_size: examples per batch.
        seed: of the run.
    """

    data: Data
    augmentation: Augmentation
    weights: np.ndarray | None
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if self.weights is not None and self.augmentation.shuffle_buffer is not None:
            raise UserError(
                f"augmentation.shuffle_buffer={self.augmentation.shuffle_buffer} and a sampling with weights do not go "
                "together; augmentation.shuffle_buffer=null shuffles everything, sampling=uniform weighs nothing"
            )

    def training(self, phase: Phase) -> Any:
        """Endless augmented batches at the size of a phase, labels at that of its network's logits."""
        from clothseg.data.pipeline import training_batches

        prepared, model = self._prepared(phase), phase.network.model
        batches = training_batches(
            prepared.photos,
            prepared.labels,
            self.data.parts.train,
            augmentation=self.augmentation,
            weights=self.weights,
            batch_size=self.batch_size,
            seed=self.seed,
            first_step=phase.first_step,
            label_stride=model.input_shape[1] // model.output_shape[1],
        )
        return self._for_heads(phase, batches)

    def names(self, phase: Phase, step: int) -> list[str]:
        """The photos in one of the batches that `training` gives, counted from the phase's first."""
        from clothseg.data.pipeline import training_rows

        rows = training_rows(
            self.data.parts.train,
            augmentation=self.augmentation,
            weights=self.weights,
            batch_size=self.batch_size,
            seed=self.seed,
            step=phase.first_step + step,
        )
        return [self.data.final.names[row] for row in rows]

    def validation(self, phase: Phase) -> Any:
        """Every validation photo once, at the size of a phase."""
        from clothseg.data.pipeline import evaluation_batches

        prepared = self._prepared(phase)
        rows = self.data.parts.validation
        batches = evaluation_batches(prepared.photos, prepared.labels, rows, batch_size=self.batch_size)
        return self._for_heads(phase, batches)

    def _prepared(self, phase: Phase) -> Prepared:
        return self.data.prepared[phase.network.model.input_shape[1:3]]

    def _for_heads(self, phase: Phase, batches: Any) -> Any:
        from clothseg.training.presence import for_both_heads

        return batches if phase.network.trained is phase.network.model else batches.map(for_both_heads)


def check_backbone(settings: TrainSettings, *, size: Size, weights: str | None) -> None:
    """Raise `UserError` for a backbone that cannot be built, or is code that may not run; without loading Keras."""
    if ":" in settings.backbone.name:
        entry.check_trusted(settings.backbone.name, option="backbone.name")
    check_encoder(settings.backbone.name, image_size=size, weights=weights)


def networks(cfg: DictConfig, settings: TrainSettings, *, classes: int) -> dict[Size, Network]:
    """A network for every size that a phase trains at; all but their sizes are alike.

    Args:
        cfg: the configuration, of which the decoder is built.
        settings: the same, checked.
        classes: how many.
    """
    if settings.gradient_checkpointing and not tensorflow_on_processor():
        log.warning("gradient_checkpointing=true changes nothing here: it is for a processor, under TensorFlow")
    return {size: network(cfg, settings, classes=classes, size=size) for size in dict.fromkeys(sizes(settings))}


def network(cfg: DictConfig, settings: TrainSettings, *, classes: int, size: Size) -> Network:
    """The encoder, and the network around it, for photos of one size."""
    from clothseg.models.backbones import build_encoder
    from clothseg.models.fused import fuse
    from clothseg.models.recomputed import recompute
    from clothseg.models.strided import compute_in_float32_where_wrong
    from clothseg.models.unet import build_network, set_batch_norm_momentum

    options, presence = settings.backbone, settings.presence
    if presence.gate > 0 and presence.weight == 0:
        raise UserError(f"presence.gate={presence.gate:g} needs the auxiliary head; give presence.weight more than 0")
    check_backbone(settings, size=size, weights=options.weights)
    encoder = build_encoder(options.name, image_size=size, weights=options.weights, input_scaling=options.input_scaling)
    if options.batch_norm_momentum is not None:
        set_batch_norm_momentum(encoder, options.batch_norm_momentum)
    made = entry.build(cfg.decoder)

    def decoder(features: Any, *, classes: int) -> Any:
        return entry.call(cfg.decoder, partial(made, classes=classes), features)

    built = build_network(
        encoder,
        decoder=decoder,
        classes=classes,
        presence=presence.weight > 0,
        gate=presence.gate,
        name="unet",
    )
    compute_in_float32_where_wrong(built.model)
    if settings.fused_layers:
        fuse(built.model, deterministic=settings.deterministic)
    if settings.gradient_checkpointing:
        recompute(built.model)
    return built


def loss(cfg: DictConfig, *, pixels: np.ndarray) -> Any:
    """The loss, which may depend on how often classes occur.

    Args:
        cfg: the configuration.
        pixels: int (m, classes), of every class in every training photo.
    """
    from clothseg.training.class_weights import ClassFrequencies
    from clothseg.training.losses import made

    frequencies = ClassFrequencies(pixels=pixels.sum(axis=0), photo_pixels=pixels.sum(axis=1) @ (pixels > 0))
    return entry.call(cfg.loss, made, entry.build(cfg.loss), frequencies)


def phases(
    cfg: DictConfig, settings: TrainSettings, *, networks: Mapping[Size, Network], photos: int, variants: int
) -> list[Phase]:
    """The phases of the schedule, each with its network, its optimizer and its place in the training data.

    Args:
        cfg: the configuration, of which optimizers and learning rates are built.
        settings: the same, checked.
        networks: by size.
        photos: that are trained on.
        variants: in which each of them is shown.

    Raises:
        UserError: an optimizer cannot be made; names it and its phase.
    """
    from clothseg.data.pipeline import steps_per_pass
    from clothseg.training.phases import Phase

    pass_steps = steps_per_pass(photos * variants, settings.batch_size)
    steps = {name: _steps(options, photos, pass_steps, settings) for name, options in settings.schedule.phases.items()}
    total = sum(options.epochs * steps[name] for name, options in settings.schedule.phases.items())
    built: list[Phase] = []
    first_step = done = 0
    for name, options in settings.schedule.phases.items():
        part = cfg.optimizer if options.optimizer is None else cfg.schedule.phases[name].optimizer
        span, start = (total, done) if settings.schedule.learning_rate_over == "training" else (None, 0)
        own = options.epochs * steps[name]
        optimizer = _optimizer(
            cfg,
            part,
            options,
            network=networks[_size(options, settings)],
            steps=span or own,
            start=start,
            fused=settings.fused_layers,
        )
        try:
            optimizer(1)
        except (TypeError, ValueError) as error:
            # Now rather than when its phase begins.
            raise UserError(f"optimizer={part.get('_target_')} of phase {name}: {error}") from error
        if settings.schedule.restart_data:
            first_step = -(-first_step // pass_steps) * pass_steps
        built.append(
            Phase(
                name=name,
                network=networks[_size(options, settings)],
                epochs=options.epochs,
                frozen=options.encoder == "frozen",
                batch_norm_frozen=options.batch_norm == "frozen",
                steps_per_epoch=steps[name],
                validation_steps=options.validation_steps,
                first_step=first_step,
                patience=settings.early_stopping.patience,
                optimizer=optimizer,
            )
        )
        first_step += own
        done += own
    return built


def _steps(options: PhaseSettings, photos: int, pass_steps: int, settings: TrainSettings) -> int:
    if options.steps_per_epoch == "photos":
        # As the article computes it, whatever the batch size: whole batches that the photos fill.
        return max(1, photos // settings.batch_size)
    return options.steps_per_epoch or pass_steps


def _optimizer(
    cfg: DictConfig,
    part: DictConfig,
    options: PhaseSettings,
    *,
    network: Network,
    steps: int,
    start: int,
    fused: bool,
) -> Any:
    from clothseg.training import optimizers, rates

    peak = options.learning_rate or part.learning_rate
    rate = rates.shifted(entry.call(cfg.learning_rate, entry.build(cfg.learning_rate), peak, steps), start)
    factory = entry.build(part)

    def make(factor: float) -> Any:
        # When its phase begins, which decides what can be trained.
        return optimizers.make(
            factory,
            learning_rate=rates.scaled(rate, factor),
            variables=network.trained.trainable_variables,
            encoder_variables=network.encoder.trainable_variables,
            encoder_rate=options.encoder_rate,
            fused=fused,
        )

    return make


def member(model: Any, settings: TrainSettings) -> Member:
    """A network as a predictor has it: with the way in which its training brought photos to it.

    Args:
        model: photos to logits, of any size.
        settings: of its training.
    """
    from clothseg.evaluation.predictor import Member
    from clothseg.models.fused import least_batch

    size = model.input_shape[1:3]
    return Member(model, size=size, resize=settings.prepare.resize, least_batch=least_batch())


def offset(data: Data, *, adjustment: float) -> np.ndarray | None:
    """What is added to logits for classes that are rare in the training photos; see `predictor.prior_offset`."""
    from clothseg.evaluation.predictor import prior_offset

    if adjustment == 0:
        return None
    return prior_offset(data.final.pixels[data.parts.train].sum(axis=0), adjustment=adjustment)


def evaluation(
    members: Sequence[Member], data: Data, options: EvaluationOptions, *, scored: Scored | None, batch_size: int
) -> Evaluator:
    """What scores networks on photos at their own sizes; see `clothseg.evaluation.native`.

    Args:
        members: networks, averaged.
        data: what the first of them was trained on.
        options: how.
        scored: the classes that are scored instead of the network's own, if any.
        batch_size: photos that go through a network together.
    """
    from clothseg.evaluation.native import Evaluator
    from clothseg.evaluation.predictor import Predictor

    return Evaluator(
        Predictor(members, flip=options.flip, offset=offset(data, adjustment=options.adjustment)),
        data.read,
        classes=len(data.final.class_names),
        scored=scored,
        tags=options.tags,
        batch_size=batch_size,
    )


def evaluation_name(split: str, options: EvaluationOptions, *more: str) -> str:
    """What an evaluation's scores are called by in a run: `val_native`, `val_native_flip`, `test_native_tags`."""
    # Another amount is another evaluation.
    adjusted = "adjusted" if options.adjustment == 1 else f"adjusted_{options.adjustment:g}"
    parts = {"flip": options.flip, "tags": options.tags, adjusted: options.adjustment}
    return "_".join([split, "native", *(name for name, used in parts.items() if used), *more])


def check_batches(settings: TrainSettings, *, training: int, validation: int) -> None:
    """Refuses batches larger than the data, and such whose last leaves a device without an example: batch norms fail.

    Args:
        settings: with the batch size and the devices.
        training, validation: examples that a pass shows.

    Raises:
        UserError: names the batch size and one that works.
    """
    size, devices = settings.batch_size, settings.devices
    if size > training:
        raise UserError(
            f"batch_size={size} is more than all {training} training examples; batch_size={training} or less works"
        )

    def fits(size: int) -> bool:
        return all(not 0 < count % size < devices for count in (training, validation))

    if not fits(size):
        works = next((other for other in range(size + 1, max(training, validation) + 1) if fits(other)), None)
        hint = f"batch_size={works} does not" if works else "use fewer devices"
        raise UserError(f"batch_size={size} leaves fewer than devices={devices} examples for the last batch; {hint}")
