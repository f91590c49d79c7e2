"""How the learning rate changes over a training.

Every factory takes the peak rate and the number of steps it spans, both > 0, and gives a float or one of Keras's
schedules. Step s, counted from 0, is taken at rate(s); the last value of a schedule is reached at s = steps, that is,
when the last step is done, and it stays there. Options are given as shares, so that they hold for any peak and length.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import keras
from keras import ops
from keras.optimizers.schedules import CosineDecay, LearningRateSchedule, PolynomialDecay

from clothseg.checks import is_number
from clothseg.errors import UserError

Rate: TypeAlias = float | LearningRateSchedule


def constant(peak: float, steps: int) -> float:
    """The same rate at every step.

    Raises:
        UserError: a peak or number of steps that is not above 0.
    """
    _check_span(peak, steps)
    return float(peak)


def cosine(peak: float, steps: int, *, warmup: float, floor: float) -> LearningRateSchedule:
    """Half a cosine from the peak down to the floor (Loshchilov & Hutter 2017, without restarts), after a warm-up.

    Args:
        peak: the highest rate.
        steps: in all, warm-up included.
        warmup: share of the steps, in 0..1 (1 excluded), over which the rate rises along a line to the peak.
        floor: share of the peak that is left at the end, in 0..1.

    Raises:
        UserError: a value out of its range.
    """
    rising = _warmup_steps(peak, steps, warmup)
    _check_share("floor", floor)
    return _warmed_up(peak, rising, CosineDecay(float(peak), steps - rising, alpha=float(floor)))


def polynomial(peak: float, steps: int, *, warmup: float, power: float, floor: float) -> LearningRateSchedule:
    """From the peak to the floor as (1 - share of the steps done) ** power, after a warm-up.

    Power 1 is a straight line; 0.9 is common in segmentation (DeepLab, Chen et al. 2018).

    Args:
        peak: the highest rate.
        steps: in all, warm-up included.
        warmup: share of the steps, in 0..1 (1 excluded), over which the rate rises along a line to the peak.
        power: above 0.
        floor: share of the peak that is left at the end, in 0..1.

    Raises:
        UserError: a value out of its range.
    """
    rising = _warmup_steps(peak, steps, warmup)
    _check_share("floor", floor)
    if not is_number(power) or power <= 0:
        raise UserError(f"learning_rate.power={power} has to be a number above 0; 0.9 is common")
    falling = PolynomialDecay(float(peak), steps - rising, end_learning_rate=float(peak * floor), power=float(power))
    return _warmed_up(peak, rising, falling)


def one_cycle(peak: float, steps: int, *, warmup: float, initial: float, final: float) -> LearningRateSchedule:
    """Up to the peak and down to nearly nothing, each along half a cosine (Smith 2018, in PyTorch's form).

    The momentum stays as it is: Smith lowers it meanwhile, which not every optimizer has a way to.

    Args:
        peak: the highest rate.
        steps: in all.
        warmup: share of the steps, in 0..1 (both excluded), after which the peak is reached.
        initial: share of the peak at the first step, above 0 and up to 1.
        final: share of the peak that is left at the end, in 0..1.

    Raises:
        UserError: a value out of its range.
    """
    rising = _warmup_steps(peak, steps, warmup)
    _check_share("initial", initial)
    _check_share("final", final)
    for name, value, hint in (("warmup", warmup, "0.3"), ("initial", initial, "0.04")):
        if value == 0:
            raise UserError(f"learning_rate.{name}={value} leaves nothing to rise from; {hint} is common")
    falling = CosineDecay(float(peak), steps - rising, alpha=float(final))
    if rising == 0:  # of so few steps that the warm-up has none of them
        return falling
    return Joined(CosineDecay(float(peak * initial), rising, alpha=1 / initial), falling, rising)


def shifted(rate: Rate, first_step: int) -> Rate:
    """The rate of a training that begins in the middle of it: what `rate` is from `first_step` on.

    An optimizer counts its steps from 0; this is for one that takes over from another.
    """
    return rate if first_step == 0 or isinstance(rate, float) else Shifted(rate, first_step)


def scaled(rate: Rate, factor: float) -> Rate:
    """The rate times a factor at every step."""
    if factor == 1:
        return rate
    return rate * factor if isinstance(rate, float) else Scaled(rate, factor)


@keras.saving.register_keras_serializable(package="clothseg")
class Joined(LearningRateSchedule):
    """One schedule up to a step, and from there on another, which sees that step as its 0."""

    def __init__(self, first: LearningRateSchedule, second: LearningRateSchedule, at: int) -> None:
        super().__init__()
        self.first, self.second, self.at = first, second, at

    def __call__(self, step: Any) -> Any:
        """The rate, a float scalar, at an int scalar."""
        return ops.where(step < self.at, self.first(step), self.second(step - self.at))

    def get_config(self) -> dict[str, Any]:
        """What `from_config` makes the same schedule of."""
        serialize = keras.optimizers.schedules.serialize
        return {"first": serialize(self.first), "second": serialize(self.second), "at": self.at}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Joined:
        """The schedule that `get_config` described."""
        deserialize = keras.optimizers.schedules.deserialize
        return cls(deserialize(config["first"]), deserialize(config["second"]), config["at"])


@keras.saving.register_keras_serializable(package="clothseg")
class Shifted(LearningRateSchedule):
    """A schedule without its first steps."""

    def __init__(self, schedule: LearningRateSchedule, first_step: int) -> None:
        super().__init__()
        self.schedule, self.first_step = schedule, first_step

    def __call__(self, step: Any) -> Any:
        """The rate, a float scalar, at an int scalar."""
        return self.schedule(step + self.first_step)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` makes the same schedule of."""
        return {"schedule": keras.optimizers.schedules.serialize(self.schedule), "first_step": self.first_step}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Shifted:
        """The schedule that `get_config` described."""
        return cls(keras.optimizers.schedules.deserialize(config["schedule"]), config["first_step"])


@keras.saving.register_keras_serializable(package="clothseg")
class Scaled(LearningRateSchedule):
    """A schedule times a factor."""

    def __init__(self, schedule: LearningRateSchedule, factor: float) -> None:
        super().__init__()
        self.schedule, self.factor = schedule, factor

    def __call__(self, step: Any) -> Any:
        """The rate, a float scalar, at an int scalar."""
        return self.schedule(step) * self.factor

    def get_config(self) -> dict[str, Any]:
        """What `from_config` makes the same schedule of."""
        return {"schedule": keras.optimizers.schedules.serialize(self.schedule), "factor": self.factor}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Scaled:
        """The schedule that `get_config` described."""
        return cls(keras.optimizers.schedules.deserialize(config["schedule"]), config["factor"])


def _warmed_up(peak: float, rising: int, falling: LearningRateSchedule) -> LearningRateSchedule:
    if rising == 0:
        return falling
    # From peak / (rising + 1) and not from 0, at which the first step would be lost.
    return Joined(PolynomialDecay(peak / (rising + 1), rising, end_learning_rate=float(peak)), falling, rising)


def _warmup_steps(peak: float, steps: int, warmup: float) -> int:
    _check_span(peak, steps)
    if not is_number(warmup) or not 0 <= warmup < 1:
        raise UserError(
            f"learning_rate.warmup={warmup} has to be a share of the steps, 0 or more and below 1; 0.1 is common"
        )
    return min(round(warmup * steps), steps - 1)


def _check_span(peak: float, steps: int) -> None:
    if not is_number(peak) or not 0 < peak < float("inf"):
        raise UserError(f"learning_rate={peak} has to be a number above 0")
    if not isinstance(steps, int) or steps < 1:
        raise UserError(f"a learning rate over {steps} steps cannot be; there has to be at least 1")


def _check_share(name: str, value: float) -> None:
    if not is_number(value) or not 0 <= value <= 1:
        raise UserError(f"learning_rate.{name}={value} has to be a share of the peak, in 0..1")
