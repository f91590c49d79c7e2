"""Losses of a segmentation, in Keras ops.

All take labels int (batch, height, width), whose pixels labelled IGNORE count nowhere, and logits (batch, own height,
own width, classes), which are resized to the labels where they are coarser, and compute in float32. A batch without a
pixel that counts has loss 0.

The functions at the end make them for a configuration, each from the class frequencies of the training set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

import numpy as np
from keras import ops
from keras.losses import Loss
from numpy.typing import ArrayLike

from clothseg.data.labels import IGNORE
from clothseg.errors import UserError
from clothseg.training.class_weights import ClassFrequencies, number, weights_by_name
from clothseg.training.cross_entropy import cross_entropies
from clothseg.training.logits import at_size_of

LossMaker = Callable[[ClassFrequencies], Loss]

# Keeps the slope of x**y finite at x = 0 for y below 1.
_TINY = 1e-7


class PixelLoss(Loss):
    """What all losses here share; they say in `of_pixels` what they are."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of a batch, float32 (1,)."""
        labels = ops.cast(y_true, "int32")
        counted = labels != IGNORE
        loss = self.of_pixels(ops.where(counted, labels, 0), ops.cast(counted, "float32"), at_size_of(y_true, y_pred))
        # Not a scalar: Keras would take it for reduced, and not divide it by the number of devices.
        return ops.reshape(loss, (1,))

    def of_pixels(self, labels: Any, counted: Any, logits: Any) -> Any:
        """The loss, a scalar.

        Args:
            labels: int32 (batch, height, width) in 0..classes-1, 0 where a pixel does not count.
            counted: float32 (batch, height, width): 1 where a pixel counts, 0 where it does not.
            logits: float32 (batch, height, width, classes).
        """
        raise NotImplementedError


class CrossEntropy(PixelLoss):
    """Softmax cross entropy: sum(w * l) / sum(w) over the pixels, where l is -log p[label] and w its class's weight.

    The weighted mean is PyTorch's: with weights, a batch of rare classes counts as much as one of frequent ones.
    Without options the loss is `keras.losses.SparseCategoricalCrossentropy(from_logits=True)` but for rounding.

    Args:
        class_weights: (classes,), at least 0, or None to weigh all pixels the same.
        label_smoothing: the share of the target, 0..1, that is spread evenly over all classes (Szegedy et al. 2016).
        prior: (classes,): shares of the training set's pixels, adding up to 1; None where `adjustment` is 0.
        adjustment: times log(prior) is added to the logits (Menon et al., ICLR 2021). As it is done in the loss alone,
            the network learns logits as though classes were as frequent as each other, fully so at 1 and not at all
            at 0. Classes of prior 0 are not adjusted, so that the network goes on learning that they do not occur.

    Raises:
        UserError: an option is out of its range.
    """

    def __init__(
        self,
        *,
        class_weights: ArrayLike | None,
        label_smoothing: float,
        prior: ArrayLike | None,
        adjustment: float,
    ) -> None:
        super().__init__()
        self.class_weights = _float32(class_weights)
        self.label_smoothing = number("label_smoothing", label_smoothing, 0, 1)
        self.offset = None
        if number("adjustment", adjustment, 0) > 0:
            shares = np.asarray(prior, np.float32)
            self.offset = adjustment * np.log(np.where(shares > 0, shares, 1))

    def of_pixels(self, labels: Any, counted: Any, logits: Any) -> Any:
        if self.offset is not None:
            logits = logits + self.offset
        if self.label_smoothing > 0:
            classes = logits.shape[-1]
            target = ops.one_hot(labels, classes) * (1 - self.label_smoothing) + self.label_smoothing / classes
            losses = ops.categorical_crossentropy(target, logits, from_logits=True)
        else:
            losses = cross_entropies(labels, logits)
        return _mean(losses, _weighted(counted, labels, self.class_weights))


class Focal(PixelLoss):
    """Cross entropy of which well predicted pixels have less: -(1 - p)**gamma * log p, p = p[label] (Lin, ICCV 2017).

    Args:
        gamma: at least 0; 0 is the cross entropy.
        class_weights: as in `CrossEntropy` (the paper's alpha); the mean is weighted as there.

    Raises:
        UserError: `gamma` is negative.
    """

    def __init__(self, *, gamma: float, class_weights: ArrayLike | None) -> None:
        super().__init__()
        self.gamma = number("gamma", gamma, 0)
        self.class_weights = _float32(class_weights)

    def of_pixels(self, labels: Any, counted: Any, logits: Any) -> Any:
        losses = cross_entropies(labels, logits)
        missing = ops.maximum(-ops.expm1(-losses), _TINY)
        return _mean(missing**self.gamma * losses, _weighted(counted, labels, self.class_weights))


class _Overlap(PixelLoss):
    """1 minus a score of how classes overlap with their predictions, over the classes that the batch has."""

    squared = False

    def of_pixels(self, labels: Any, counted: Any, logits: Any) -> Any:
        classes = logits.shape[-1]
        axes = (0, 1, 2)
        probabilities = ops.softmax(logits) * counted[..., None]
        # A one-hot product takes half the time of gathering, whose gradient scatters.
        hits = ops.sum(probabilities * ops.one_hot(labels, classes), axes)
        predicted = ops.sum(ops.square(probabilities) if self.squared else probabilities, axes)
        truth = ops.segment_sum(ops.reshape(counted, (-1,)), ops.reshape(labels, (-1,)), num_segments=classes)
        return _mean(self.of_classes(hits, predicted, truth), ops.cast(truth > 0, "float32"))

    def of_classes(self, hits: Any, predicted: Any, truth: Any) -> Any:
        """The loss of each class, (classes,).

        Args:
            hits: (classes,): sum of p[c] over the pixels of class c.
            predicted: (classes,): sum of p[c], or of its square, over all pixels.
            truth: (classes,): pixels of class c.
        """
        raise NotImplementedError


class Dice(_Overlap):
    """1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth), sums over the batch, mean over the classes it has.

    Args:
        smooth: in pixels, at least 0; it dampens classes of few pixels.
        squared: whether to have sum(p**2) in place of sum(p), as Milletari et al. (3DV 2016) have it.

    Raises:
        UserError: `smooth` is negative.
    """

    def __init__(self, *, smooth: float, squared: bool) -> None:
        _true_or_false("squared", squared)
        super().__init__()
        self.smooth = number("smooth", smooth, 0)
        self.squared = squared

    def of_classes(self, hits: Any, predicted: Any, truth: Any) -> Any:
        return 1 - ops.divide_no_nan(2 * hits + self.smooth, predicted + truth + self.smooth)


class Tversky(_Overlap):
    """(1 - (TP + smooth) / (TP + alpha FP + beta FN + smooth))**exponent, mean over the classes the batch has.

    TP = sum(p t), FP = sum(p (1 - t)), FN = sum((1 - p) t), over the batch (Salehi et al., MLMI 2017). Half and half is
    the Dice loss; a larger beta finds more of each class and more that is not there.

    Args:
        alpha: what a pixel wrongly taken for the class costs, at least 0.
        beta: what a missed pixel of the class costs, at least 0.
        smooth: in pixels, at least 0.
        exponent: 0.1..10; below 1 it turns to classes that are predicted well, above 1 to those predicted badly. The
            focal Tversky loss (Abraham and Khan, ISBI 2019) has 0.75.

    Raises:
        UserError: a number is out of its range.
    """

    def __init__(self, *, alpha: float, beta: float, smooth: float, exponent: float) -> None:
        super().__init__()
        self.alpha, self.beta = number("alpha", alpha, 0), number("beta", beta, 0)
        self.smooth, self.exponent = number("smooth", smooth, 0), number("exponent", exponent, 0.1, 10)

    def of_classes(self, hits: Any, predicted: Any, truth: Any) -> Any:
        wrong, missed = self.alpha * (predicted - hits), self.beta * (truth - hits)
        # As a share of its own, lest 1 minus the score lose digits where the score is close to 1.
        loss = ops.divide_no_nan(wrong + missed, hits + wrong + missed + self.smooth)
        return loss if self.exponent == 1 else ops.maximum(loss, _TINY) ** self.exponent


class LovaszSoftmax(PixelLoss):
    """The Lovász extension of 1 - IoU, mean over the classes present (Berman et al., CVPR 2018).

    For one class, pixels are put in the order of their errors, the largest first, and each error e is multiplied with
    what its pixel adds to 1 - IoU if all pixels up to it are wrong. Sorting takes most of the time, so errors are
    counted into bins instead, and pixels of a bin share what they add: O(pixels), and within 1 / bins of the loss with
    sorting, as the shares add up to 1.

    Args:
        per_image: whether to take the loss of each photo, and then the mean, instead of that of the batch as a whole.
        most: only so many classes, the most frequent of the photo (or batch), are looked at, or None for all. Shapes
            must not depend on labels, so without it absent classes cost time too. No photo of Clothing Co-Parsing has
            more than 14 classes, the background included.
        bins: 2..100,000; there are as many for each class of each photo, so a thousand are better than more.

    Raises:
        UserError: `most` or `bins` is out of its range.
    """

    def __init__(self, *, per_image: bool, most: int | None, bins: int) -> None:
        _true_or_false("per_image", per_image)
        super().__init__()
        self.per_image = per_image
        self.most = None if most is None else _whole("most", most, 1)
        self.bins = _whole("bins", bins, 2, 100_000)

    def of_pixels(self, labels: Any, counted: Any, logits: Any) -> Any:
        classes = logits.shape[-1]
        most = min(classes, self.most or classes)
        # The IoU is that of a group of pixels: a photo, or the whole batch.
        groups = ops.shape(labels)[0] if self.per_image else 1
        labels = ops.reshape(labels, (groups, -1))  # (groups, pixels)
        counted = ops.reshape(counted, (groups, -1))
        probabilities = ops.reshape(ops.softmax(logits), (groups, -1, classes))

        group = ops.arange(groups, dtype="int32")[:, None]
        in_group = ops.reshape(group * classes + labels, (-1,))
        pixels = ops.segment_sum(ops.reshape(counted, (-1,)), in_group, num_segments=groups * classes)
        truth, chosen = ops.top_k(ops.reshape(pixels, (groups, classes)), most)  # (groups, most)
        chosen = ops.cast(chosen, "int32")

        by_class = ops.reshape(ops.transpose(probabilities, (0, 2, 1)), (groups * classes, -1))
        probabilities = ops.take(by_class, group * classes + chosen, axis=0)  # (groups, most, pixels)
        inside = labels[:, None] == chosen[..., None]
        errors = ops.where(inside, 1 - probabilities, probabilities) * counted[:, None]
        losses = ops.sum(errors * ops.stop_gradient(self._shares(errors, inside, counted, truth)), axis=-1)

        present = ops.cast(truth > 0, "float32")
        of_groups = ops.divide_no_nan(ops.sum(losses * present, axis=-1), ops.sum(present, axis=-1))
        return _mean(of_groups, ops.max(present, axis=-1))

    def _shares(self, errors: Any, inside: Any, counted: Any, truth: Any) -> Any:
        """What each pixel adds to 1 - IoU of each class, (groups, most, pixels)."""
        groups, most = ops.shape(truth)[0], truth.shape[1]
        # Clipped from below as well: of a diverged training's errors, which are NaN, there is no place to look up.
        bins = ops.clip(ops.cast(errors * self.bins, "int32"), 0, self.bins - 1)
        row = ops.reshape(ops.arange(groups * most, dtype="int32"), (groups, most, 1))
        cells = ops.reshape((row * 2 + ops.cast(inside, "int32")) * self.bins + bins, (-1,))
        ones = ops.reshape(ops.broadcast_to(counted[:, None], ops.shape(errors)), (-1,))
        counts = ops.segment_sum(ops.cast(ones, "int32"), cells, num_segments=groups * most * 2 * self.bins)
        counts = ops.reshape(counts, (groups, most, 2, self.bins))
        # Pixels in a bin or any above it, and in those above it alone.
        upto = ops.flip(ops.cumsum(ops.flip(counts, -1), -1), -1)
        upto, above = ops.cast(upto, "float32"), ops.cast(upto - counts, "float32")
        # IoU = (truth - missed) / union, the union being truth plus what is wrongly taken for the class. A bin's pixels
        # inside of the class and outside of it are mixed: each kind is the mean of coming before and after the other.
        union_upto, union_above = (ops.maximum(truth[..., None] + wrong[:, :, 0], 1) for wrong in (upto, above))
        missed = (upto[:, :, 1] + above[:, :, 1]) / 2
        if_inside = (1 / union_upto + 1 / union_above) / 2
        if_outside = (truth[..., None] - missed) / (union_upto * union_above)
        shares = ops.stack([if_outside, if_inside], axis=2)  # as `counts`
        return ops.reshape(ops.take(ops.reshape(shares, (-1,)), cells), ops.shape(errors))


class Foreign(PixelLoss):
    """A loss of Keras's, or one written like those, per pixel: its mean over the pixels that count.

    Args:
        loss: whose `call(labels, logits)` gives float (batch, height, width) of labels int (batch, height, width) and
            logits (batch, height, width, classes).
    """

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self.loss = loss

    def of_pixels(self, labels: Any, counted: Any, logits: Any) -> Any:
        losses = self.loss.call(labels, logits)
        if len(losses.shape) != 3:
            raise UserError(
                f"loss={type(self.loss).__name__} gives {tuple(losses.shape)} instead of one value for each pixel; "
                "keras.losses.SparseCategoricalCrossentropy with from_logits: true is one that works"
            )
        return _mean(losses, counted)


class Sum(Loss):
    """Losses added up, each times its weight.

    Args:
        losses: by name.
        weights: of the same names, at least 0, not all 0. A loss that weighs 0 is not computed.

    Raises:
        UserError: names differ, or a weight is out of its range.
    """

    def __init__(self, losses: Mapping[str, Loss], weights: Mapping[str, float]) -> None:
        super().__init__()
        if odd := sorted(set(losses) ^ set(weights)):
            named = f"{', '.join(losses) or 'none'}; weights: {', '.join(weights) or 'none'}"
            raise UserError(f"losses: {named}: both have to name the same, and {odd[0]} is in one alone")
        for name, weight in weights.items():
            number(f"weights.{name}", weight, 0)
        if not any(weights.values()):
            raise UserError(f"weights={dict(weights)} of a sum of losses do not work: at least one has to be above 0")
        self.terms = [(float(weights[name]), loss) for name, loss in losses.items() if weights[name] > 0]

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The loss of a batch, a float32 scalar; each loss reduces itself."""
        logits = at_size_of(y_true, ops.cast(y_pred, "float32"))
        return sum(weight * loss(y_true, logits, sample_weight) for weight, loss in self.terms)


def cross_entropy(
    frequencies: ClassFrequencies,
    *,
    class_weights: str | None,
    weighting: Mapping[str, Any],
    label_smoothing: float,
    adjustment: float,
) -> CrossEntropy:
    """`CrossEntropy` with the training set's class weights and prior.

    Args:
        frequencies: of the training set.
        class_weights: effective_number, median_frequency or None.
        weighting: beta, power and maximum of `clothseg.training.class_weights.weights_by_name`.
        label_smoothing: as of `CrossEntropy`.
        adjustment: as of `CrossEntropy`.

    Raises:
        UserError: an option is unknown or out of its range.
    """
    return CrossEntropy(
        class_weights=_class_weights(frequencies, class_weights, weighting),
        label_smoothing=label_smoothing,
        prior=frequencies.pixels / max(frequencies.pixels.sum(), 1),
        adjustment=adjustment,
    )


def focal(
    frequencies: ClassFrequencies, *, gamma: float, class_weights: str | None, weighting: Mapping[str, Any]
) -> Focal:
    """`Focal` with the training set's class weights; arguments as in `cross_entropy`."""
    return Focal(gamma=gamma, class_weights=_class_weights(frequencies, class_weights, weighting))


def dice(frequencies: ClassFrequencies, **options: Any) -> Dice:
    """`Dice`, whatever the frequencies are."""
    return Dice(**options)


def tversky(frequencies: ClassFrequencies, **options: Any) -> Tversky:
    """`Tversky`, whatever the frequencies are."""
    return Tversky(**options)


def lovasz(frequencies: ClassFrequencies, **options: Any) -> LovaszSoftmax:
    """`LovaszSoftmax`, whatever the frequencies are."""
    return LovaszSoftmax(**options)


def weighted_sum(
    frequencies: ClassFrequencies, *, losses: Mapping[str, Loss | LossMaker], weights: Mapping[str, float]
) -> Sum:
    """`Sum` of losses, those made from the frequencies that are functions of them."""
    for part, given in (("losses", losses), ("weights", weights)):
        if not isinstance(given, Mapping):
            raise UserError(f"loss.{part}={given} has to name losses, as loss=cross_entropy_dice does")
    for name, loss in losses.items():
        if not callable(loss):
            raise UserError(
                f"loss.losses.{name}={loss} is no loss; +loss@loss.losses.{name}=dice adds one, for example"
            )
    return Sum({name: made(loss, frequencies) for name, loss in losses.items()}, weights)


def made(loss: Loss | LossMaker, frequencies: ClassFrequencies) -> Loss:
    """A loss of a configuration: itself, or made from the class frequencies of the training set.

    Raises:
        UserError: the function does not take its arguments, or refuses them.
    """
    try:
        if _is_class(loss):
            loss = loss()
        if isinstance(loss, Loss):
            return loss if isinstance(loss, (PixelLoss, Sum)) else Foreign(loss)
        return loss(frequencies)
    except TypeError as error:
        raise UserError(f"the loss cannot be made: {error}") from error


def _is_class(loss: Any) -> TypeGuard[Callable[[], Loss]]:
    """Whether it is a class of losses that its arguments were given to (`_partial_`), and no function."""
    return isinstance(getattr(loss, "func", loss), type)


def _class_weights(frequencies: ClassFrequencies, name: str | None, weighting: Mapping[str, Any]) -> np.ndarray | None:
    if not isinstance(weighting, Mapping):
        raise UserError(f"loss.weighting={weighting} has to be beta, power and maximum; class_weights=null is for none")
    return weights_by_name(frequencies, name, **weighting)


def _float32(values: ArrayLike | None) -> np.ndarray | None:
    return None if values is None else np.asarray(values, np.float32)


def _mean(values: Any, weights: Any) -> Any:
    return ops.divide_no_nan(ops.sum(values * weights), ops.sum(weights))


def _weighted(counted: Any, labels: Any, class_weights: np.ndarray | None) -> Any:
    return counted if class_weights is None else counted * ops.take(class_weights, labels)


def _true_or_false(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise UserError(f"{name}={value} of a loss does not work: it may be true or false")


def _whole(name: str, value: Any, low: int, high: float = math.inf) -> int:
    if number(name, value, low, high) % 1:
        raise UserError(f"{name}={value} of a loss does not work: it has to be a whole number")
    return int(value)
