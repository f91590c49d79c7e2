"""Optimizers update each weight in one operation of TensorFlow, where Keras composes it of ten to twenty.

A third of the operations of a step are those of an optimizer, and its graph is built and compiled whenever a phase
begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from clothseg.machine import tensorflow_on_processor


def fuse(optimizer: keras.Optimizer) -> None:
    """Lets Adam, AdamW, RMSprop and SGD with momentum update a weight in one operation.

    The numbers are the same but for rounding. Does nothing under another backend of Keras, on a GPU, and for other
    optimizers and options.

    Args:
        optimizer: is changed, and saved as what it is. It has not been built yet.
    """
    if not tensorflow_on_processor():
        return
    # Of these classes themselves: who derives from them may update otherwise.
    kind = type(optimizer)
    if kind in (keras.optimizers.Adam, keras.optimizers.AdamW) and not optimizer.amsgrad:
        optimizer.update_step = _adam(optimizer)
    elif kind is keras.optimizers.RMSprop and not optimizer.centered:
        optimizer.update_step = _rmsprop(optimizer)
    elif kind is keras.optimizers.SGD and optimizer.momentum != 0:
        optimizer.update_step = _momentum(optimizer)


def _adam(optimizer: keras.optimizers.Adam) -> Callable[[Any, Any, Any], None]:
    import tensorflow as tf

    def update_step(gradient: Any, variable: Any, learning_rate: Any) -> None:
        place, dtype = optimizer._get_variable_index(variable), variable.dtype
        step = ops.cast(optimizer.iterations + 1, dtype)
        betas = {"beta1": ops.cast(optimizer.beta_1, dtype), "beta2": ops.cast(optimizer.beta_2, dtype)}
        tf.raw_ops.ResourceApplyAdam(
            var=_handle(variable),
            m=_handle(optimizer._momentums[place]),
            v=_handle(optimizer._velocities[place]),
            lr=ops.cast(learning_rate, dtype),
            **betas,
            **{f"{name}_power": beta**step for name, beta in betas.items()},
            epsilon=ops.cast(optimizer.epsilon, dtype),
            grad=ops.cast(gradient, dtype),
        )

    return update_step


def _rmsprop(optimizer: keras.optimizers.RMSprop) -> Callable[[Any, Any, Any], None]:
    import tensorflow as tf

    build, momentums = optimizer.build, list[Any]()

    def build_with_momentums(variables: Sequence[Any]) -> None:
        build(variables)
        # The operation writes its last step there, which at a momentum of 0 nobody reads.
        if not momentums:
            with tf.init_scope():  # Keras may build an optimizer while it traces its first step
                zeros = [tf.Variable(tf.zeros(variable.shape), trainable=False) for variable in variables]
            momentums.extend(optimizer._momentums or zeros)

    def update_step(gradient: Any, variable: Any, learning_rate: Any) -> None:
        place, dtype = optimizer._get_variable_index(variable), variable.dtype
        tf.raw_ops.ResourceApplyRMSProp(
            var=_handle(variable),
            ms=_handle(optimizer._velocities[place]),
            mom=_handle(momentums[place]),
            lr=ops.cast(learning_rate, dtype),
            rho=ops.cast(optimizer.rho, dtype),
            momentum=ops.cast(optimizer.momentum, dtype),
            epsilon=ops.cast(optimizer.epsilon, dtype),
            grad=ops.cast(gradient, dtype),
        )

    optimizer.build = build_with_momentums
    return update_step


def _momentum(optimizer: keras.optimizers.SGD) -> Callable[[Any, Any, Any], None]:
    import tensorflow as tf

    def update_step(gradient: Any, variable: Any, learning_rate: Any) -> None:
        dtype = variable.dtype
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=_handle(variable),
            accum=_handle(optimizer.momentums[optimizer._get_variable_index(variable)]),
            lr=ops.cast(learning_rate, dtype),
            grad=ops.cast(gradient, dtype),
            momentum=ops.cast(optimizer.momentum, dtype),
            use_nesterov=optimizer.nesterov,
        )

    return update_step


def _handle(variable: Any) -> Any:
    """That of a variable of Keras, or of TensorFlow, which an update sees on each of several devices."""
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle
