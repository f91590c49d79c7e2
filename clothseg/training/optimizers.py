"""Optimizers: Keras's own, with weight decay where it belongs and a lower rate for the encoder.

Gradient clipping and averaged weights are options of Keras's optimizers and need nothing here; for averaged weights see
also `clothseg.training.averaging`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import keras

from clothseg.checks import is_number
from clothseg.errors import UserError
from clothseg.training import updates

# Names that Keras gives to weights of norms, and to biases, those of attention being of more than one dimension.
_UNDECAYED = ("beta", "bias", "gamma", "scale")


def make(
    factory: Callable[..., keras.Optimizer],
    *,
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    variables: Iterable[keras.Variable],
    encoder_variables: Iterable[keras.Variable],
    encoder_rate: float,
    fused: bool,
) -> keras.Optimizer:
    """An optimizer to compile a model with. Make it anew for every `compile`, in the same device placement.

    Args:
        factory: a class of `keras.optimizers`, or a partial of one; called with the learning rate.
        learning_rate: a number or a schedule.
        variables: the model's trainable variables; of these norms and biases are kept from weight decay.
        encoder_variables: those, or more than those, that are trained at another rate.
        encoder_rate: what their learning rate is multiplied by; 1 changes nothing.
        fused: whether weights are updated in one operation, if there is one; see `updates`.

    Raises:
        UserError: an `encoder_rate` that is no number above 0, or an optimizer that cannot have one.
        TypeError, ValueError: of Keras, about an argument of the optimizer.
    """
    optimizer = factory(learning_rate=learning_rate)
    _check(optimizer)
    if fused:
        updates.fuse(optimizer)
    keep_from_decay(optimizer, variables)
    if encoder_rate != 1:
        scale_rates(optimizer, encoder_variables, encoder_rate)
    return optimizer


def _check(optimizer: keras.Optimizer) -> None:
    """Raise `UserError` for options that Keras takes as they come."""
    for option in ("weight_decay", "clipnorm", "global_clipnorm", "clipvalue"):
        value = getattr(optimizer, option)
        if value is not None and not (is_number(value) and value >= 0):
            raise UserError(f"optimizer.{option}={value} has to be a number of at least 0, or null")
    if not isinstance(optimizer.use_ema, bool):
        raise UserError(f"optimizer.use_ema={optimizer.use_ema} has to be true or false")
    if not (is_number(optimizer.ema_momentum) and 0 <= optimizer.ema_momentum <= 1):
        raise UserError(f"optimizer.ema_momentum={optimizer.ema_momentum} has to be a number from 0 to 1")


def decays(variable: keras.Variable) -> bool:
    """Whether weight decay is for this variable: for kernels, and not for what norms and biases add or multiply.

    Kernels of depthwise convolutions decay too, as in the training of MobileNetV2 (Sandler et al. 2018) and in timm,
    though the first MobileNet (Howard et al. 2017) gave them "very little or no weight decay".
    """
    return len(variable.shape) > 1 and variable.name not in _UNDECAYED


def keep_from_decay(optimizer: keras.Optimizer, variables: Iterable[keras.Variable]) -> None:
    """Makes the optimizer's weight decay, if it has one, leave alone those of the variables that are not to decay."""
    optimizer.exclude_from_weight_decay(var_list=[variable for variable in variables if not decays(variable)])


def scale_rates(optimizer: keras.Optimizer, variables: Iterable[keras.Variable], factor: float) -> None:
    """Multiplies the learning rate of some variables, and with it their weight decay; a schedule goes on as it is.

    Args:
        optimizer: one that has not been built and is in no `LossScaleOptimizer` yet (`compile` puts it into one).
        variables: whose rate changes. Some, or all, may not be trained at all.
        factor: above 0.

    Raises:
        UserError: a factor that is no number above 0, or an optimizer with a weight decay of its own kind (Muon).
    """
    if not isinstance(factor, (int, float)) or isinstance(factor, bool) or not 0 < factor < math.inf:
        raise UserError(
            f"the encoder's learning rate times {factor} cannot be; use a number above 0, or freeze the encoder"
        )
    if type(optimizer)._apply_weight_decay is not keras.Optimizer._apply_weight_decay:
        raise UserError(
            f"{type(optimizer).__name__} cannot have a rate for the encoder alone; AdamW, Adam, RMSprop and SGD can"
        )
    # Keras's key of a variable, the same for the copies of it that an update sees on each of several devices.
    key = optimizer._var_key
    scaled = {key(variable) for variable in variables}
    update_step = optimizer.update_step

    def scaled_step(gradient: Any, variable: Any, learning_rate: Any) -> None:
        rate = learning_rate * factor if key(variable) in scaled else learning_rate
        if optimizer.weight_decay is not None and optimizer._use_weight_decay(variable):
            optimizer.assign_sub(variable, variable * optimizer.weight_decay * rate)
        update_step(gradient, variable, rate)

    # On the instance, so that it is saved and loaded as what it is.
    optimizer.update_step = scaled_step
    # Keras lets everything decay at one rate, before the first update; here each weight does just before its own.
    optimizer._apply_weight_decay = lambda variables: None
