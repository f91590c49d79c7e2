"""The network and the phases that a configuration describes."""

from __future__ import annotations

from functools import partial
from typing import Any

from omegaconf import DictConfig

from clothseg import entry
from clothseg.errors import UserError
from clothseg.settings import TrainSettings


def network(cfg: DictConfig, settings: TrainSettings, *, classes: int) -> tuple[Any, Any]:
    """The encoder, and the U-Net around it.

    Args:
        cfg: the configuration, of which the decoder is built.
        settings: the same, checked.
        classes: how many.
    """
    from clothseg.models.backbones import build_encoder
    from clothseg.models.unet import build_unet, set_batch_norm_momentum

    options = settings.backbone
    encoder = build_encoder(
        options.name, image_size=settings.size, weights=options.weights, input_scaling=options.input_scaling
    )
    if options.batch_norm_momentum is not None:
        set_batch_norm_momentum(encoder, options.batch_norm_momentum)
    return encoder, build_unet(encoder, decoder=entry.build(cfg.decoder), classes=classes, name="unet")


def phases(cfg: DictConfig, settings: TrainSettings, *, photos: int, variants: int) -> list[Any]:
    """The phases of the schedule, each with its optimizer and its place in the training data.

    Args:
        cfg: the configuration, of which optimizers are built.
        settings: the same, checked.
        photos: that are trained on.
        variants: in which each of them is shown.

    Raises:
        UserError: an optimizer cannot be made; names it and its phase.
    """
    from clothseg.data.pipeline import steps_per_pass
    from clothseg.training.phases import Phase

    pass_steps = steps_per_pass(photos * variants, settings.batch_size)
    built: list[Phase] = []
    first_step = 0
    for name, options in settings.schedule.phases.items():
        part = cfg.optimizer if options.optimizer is None else cfg.schedule.phases[name].optimizer
        optimizer = entry.build(part)
        if options.learning_rate is not None:
            optimizer = partial(optimizer, learning_rate=options.learning_rate)
        try:
            optimizer()
        except (TypeError, ValueError) as error:
            # Now rather than when its phase begins.
            raise UserError(f"optimizer={part.get('_target_')} of phase {name}: {error}") from error
        if settings.schedule.restart_data:
            first_step = -(-first_step // pass_steps) * pass_steps
        steps = options.steps_per_epoch or pass_steps
        if steps == "photos":
            # As the article computes it, whatever the batch size: whole batches that the photos fill.
            steps = max(1, photos // settings.batch_size)
        built.append(
            Phase(
                name=name,
                epochs=options.epochs,
                frozen=options.encoder == "frozen",
                steps_per_epoch=steps,
                validation_steps=options.validation_steps,
                first_step=first_step,
                optimizer=optimizer,
            )
        )
        first_step += options.epochs * steps
    return built


def check_batches(settings: TrainSettings, *examples: int) -> None:
    """Refuses a batch size whose last batch leaves a device without an example: batch norms fail on nothing.

    Raises:
        UserError: names the batch size and one that works.
    """
    size, devices = settings.batch_size, settings.devices

    def fits(size: int) -> bool:
        return all(not 0 < count % size < devices for count in examples)

    if not fits(size):
        works = next((other for other in range(size + 1, max(examples) + 1) if fits(other)), None)
        hint = f"batch_size={works} does not" if works else "use fewer devices"
        raise UserError(f"batch_size={size} leaves fewer than devices={devices} examples for the last batch; {hint}")
