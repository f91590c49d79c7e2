"""Random augmentation of whole batches: geometry, colour, what cameras and files do to photos, erasing, copy-paste.

All random numbers come from the keys of the examples (see `clothseg.data.augmentation.keyed`), so nothing here has a
state: a run can be repeated and resumed, and tf.data may take many batches at once even where it has to be
deterministic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from clothseg.checks import is_number
from clothseg.data import aligned
from clothseg.data.augmentation import colour, geometry
from clothseg.data.augmentation.contract import Read
from clothseg.data.augmentation.keyed import between, chosen, words
from clothseg.data.augmentation.paste import Donors
from clothseg.data.labels import IGNORE
from clothseg.data.prepared import PADDING
from clothseg.errors import UserError

Bounds = tuple[float, float]


class RandomAugmentation:
    """Every photo once in every pass, each time changed at random; fulfils `contract.Augmentation`.

    An option that is null, or 0 where it is a probability, does nothing, and changes nothing about the others. Ranges
    are pairs (lowest, highest). In this order an example may get, with the options that say how:

    Clothes of another photo, pasted with their labels (Ghiasi et al. 2021), where they are in that photo: people stand
    in the middle of street photos, so that shoes come to the feet and hats to the head.
        copy_paste: probability.
        copy_paste_rarity: how much more often rare classes are drawn, see `clothseg.data.augmentation.paste.Donors`.
        copy_paste_flip: probability that left and right of the other photo are swapped.
        copy_paste_shift: range in heights and widths by which they are moved.

    Other colours.
        saturation: range of factors.
        hue: range in parts of a full circle, from red towards yellow.
        contrast: range of factors.
        brightness: range of what is added, in parts of the range of values.
        gamma: range of exponents; above 1 photos become darker.

    Another place, all at once, so that a photo is resampled only once. What comes from outside of the photo is grey and
    labelled `IGNORE`.
        flip: probability that left and right are swapped.
        scale: range of factors. Of a photo that becomes larger than its frame a part is seen that lies anywhere in it
            (a random crop); a smaller one lies anywhere in the frame.
        aspect: range of factors of width by height, at the same area.
        rotation: range in degrees, counter-clockwise.
        shift: range in heights and widths, on top of that.
        perspective: range of how much smaller the lower and right edges become and the opposite ones larger.

    A worse picture.
        blur: probability; blur_sigma: range in heights, so that it does not depend on the size of photos.
        noise: probability; noise_deviation: range in levels of 0..255.
        jpeg: probability; jpeg_quality: range in 1..100.

    A grey rectangle (random erasing; Zhong et al. 2020). Its labels become `IGNORE`: nobody can tell what small things
    such as glasses are under it, and asking would teach to invent them (French et al. 2020 leave cut-out pixels out of
    the loss likewise). What is learnt is to do without what is hidden.
        erasing: probability; erasing_area: range of its share of the photo; erasing_aspect: range of height by width.

    Raises:
        UserError: a value out of its range.
    """

    variants = ("random",)
    shuffle_buffer = None

    def __init__(
        self,
        *,
        flip: float | None,
        scale: Bounds | None,
        aspect: Bounds | None,
        rotation: Bounds | None,
        shift: Bounds | None,
        perspective: Bounds | None,
        brightness: Bounds | None,
        contrast: Bounds | None,
        saturation: Bounds | None,
        hue: Bounds | None,
        gamma: Bounds | None,
        blur: float | None,
        blur_sigma: Bounds | None,
        noise: float | None,
        noise_deviation: Bounds | None,
        jpeg: float | None,
        jpeg_quality: Bounds | None,
        erasing: float | None,
        erasing_area: Bounds | None,
        erasing_aspect: Bounds | None,
        copy_paste: float | None,
        copy_paste_rarity: float,
        copy_paste_flip: float | None,
        copy_paste_shift: Bounds | None,
    ) -> None:
        self.flip = _probability("flip", flip)
        self.scale = _bounds("scale", scale, 0.25, 4)
        self.aspect = _bounds("aspect", aspect, 0.25, 4)
        self.rotation = _bounds("rotation", rotation, -180, 180)
        self.shift = _bounds("shift", shift, -1, 1)
        self.perspective = _bounds("perspective", perspective, -0.4, 0.4)
        self.brightness = _bounds("brightness", brightness, -1, 1)
        self.contrast = _bounds("contrast", contrast, 0.1, 10)
        self.saturation = _bounds("saturation", saturation, 0, 10)
        self.hue = _bounds("hue", hue, -0.5, 0.5)
        self.gamma = _bounds("gamma", gamma, 0.1, 10)
        self.blur = _probability("blur", blur)
        self.blur_sigma = _bounds("blur_sigma", blur_sigma, 0, 0.05, needed_by=self.blur)
        self.noise = _probability("noise", noise)
        self.noise_deviation = _bounds("noise_deviation", noise_deviation, 0, 255, needed_by=self.noise)
        self.jpeg = _probability("jpeg", jpeg)
        self.jpeg_quality = _bounds("jpeg_quality", jpeg_quality, 1, 100, needed_by=self.jpeg)
        self.erasing = _probability("erasing", erasing)
        self.erasing_area = _bounds("erasing_area", erasing_area, 0, 1, needed_by=self.erasing)
        self.erasing_aspect = _bounds("erasing_aspect", erasing_aspect, 0.1, 10)
        self.copy_paste = _probability("copy_paste", copy_paste)
        if not is_number(copy_paste_rarity) or not 0 <= copy_paste_rarity <= 2:
            raise UserError(f"augmentation.copy_paste_rarity={copy_paste_rarity}: it may be a number from 0 to 2")
        self.copy_paste_rarity = copy_paste_rarity
        self.copy_paste_flip = _probability("copy_paste_flip", copy_paste_flip)
        self.copy_paste_shift = _bounds("copy_paste_shift", copy_paste_shift, -1, 1)
        self._donors: Donors | None = None

    def fit(self, rows: np.ndarray, pixels: np.ndarray) -> None:
        """Learns which training photos have which classes, for copy-paste.

        Args:
            rows: int (m,), numbers of the photos that are trained on.
            pixels: int (m, classes), how many pixels of each class every one of them has, background first. Where none
                has anything but background, nothing is pasted.
        """
        self._donors = Donors(rows, pixels, rarity=self.copy_paste_rarity)

    def __call__(
        self, photos: tf.Tensor, labels: tf.Tensor, keys: tf.Tensor, read: Read
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """One augmented batch.

        Args:
            photos: (batch, height, width, 3) in 0..255, uint8 or float32; the size has to be known.
            labels: uint8 (batch, height, width).
            keys: int64 (batch, parts), which all random numbers come from.
            read: gives other photos and their labels by their numbers, int64 (k,).

        Returns:
            Photos of the same shape as float32, and labels of the same shape as uint8.
        """
        photos, labels = self._pasted(tf.convert_to_tensor(photos), tf.convert_to_tensor(labels), keys, read)
        photos, labels = self._recoloured_and_moved(photos, labels, keys)
        photos = self._worsened(photos, keys)
        return self._erased(photos, labels, keys)

    def _pasted(self, photos: tf.Tensor, labels: tf.Tensor, keys: tf.Tensor, read: Read) -> tuple[tf.Tensor, tf.Tensor]:
        if not self.copy_paste:
            return photos, labels
        if self._donors is None:
            raise RuntimeError("copy-paste needs `fit` to be called first")
        donors = self._donors
        if not len(donors.classes):
            return photos, labels
        photos = tf.cast(photos, tf.float32)

        def draw(keys: np.ndarray) -> tuple[np.ndarray, ...]:
            flip = chosen(keys, "copy_paste.flip", self.copy_paste_flip)
            shift = between(keys, "copy_paste.shift", self.copy_paste_shift, 2, nothing=0)
            still = np.zeros((len(keys), 2))
            moves = geometry.transforms(
                tuple(labels.shape[1:]), flip=flip, scale=still + 1, angle=still[:, 0], shift=shift, perspective=still
            )
            return (*donors.draw(keys), moves)

        def paste(photos: tf.Tensor, labels: tf.Tensor, keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            rows, values, moves = _drawn(draw, keys, (tf.int64,), (tf.uint8,), (tf.float32, 8))
            donors_photos, donors_labels = read(rows)
            donors_photos, donors_labels = tf.cast(donors_photos, tf.float32), tf.convert_to_tensor(donors_labels)
            other_photos, other_labels = geometry.warp(donors_photos, donors_labels, moves)
            pasted = other_labels == values[:, None, None]
            return tf.where(pasted[..., None], other_photos, photos), tf.where(pasted, other_labels, labels)

        return _to_some("copy_paste", self.copy_paste, keys, paste, photos, labels)

    def _recoloured_and_moved(
        self, photos: tf.Tensor, labels: tf.Tensor, keys: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Photo by photo, which stays in the processor's cache from the first change to the last."""
        recolours = any((self.saturation, self.hue, self.contrast, self.brightness))
        moves = any((self.flip, self.scale, self.aspect, self.rotation, self.shift, self.perspective))
        if not (recolours or self.gamma or moves):
            return tf.cast(photos, tf.float32), labels

        def change(photos: np.ndarray, labels: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            colours, gamma = self._colours(keys) if recolours else (), self._gamma(keys)
            transforms = self._transforms(keys, tuple(labels.shape[1:])) if moves else ()
            new_photos, new_labels = aligned.empty(photos.shape, np.float32), aligned.empty(labels.shape, np.uint8)
            for place, photo in enumerate(photos):
                photo = photo.astype(np.float32, copy=False)
                if recolours:
                    mixture, contrast, brightness = (values[place] for values in colours)
                    photo = colour.change_colours(photo, mixture=mixture, contrast=contrast, brightness=brightness)
                if self.gamma:
                    photo = colour.change_gamma(photo, gamma=gamma[place])
                if moves:
                    geometry.warp_into(new_photos[place], new_labels[place], photo, labels[place], transforms[place])
                else:
                    new_photos[place], new_labels[place] = photo, labels[place]
            return new_photos, new_labels

        # Declared stateless, which it is: of what has a state, deterministic runs would take only one batch at a time.
        changed, targets = tf.numpy_function(change, [photos, labels, keys], (tf.float32, tf.uint8), stateful=False)
        return tf.ensure_shape(changed, photos.shape), tf.ensure_shape(targets, labels.shape)

    def _colours(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each example its mixture of colours, contrast and brightness."""
        saturation = between(keys, "saturation", self.saturation, 1, nothing=1)[:, 0]
        hue = between(keys, "hue", self.hue, 1, nothing=0)[:, 0]
        return (
            colour.mixtures(saturation=saturation, hue=hue),
            between(keys, "contrast", self.contrast, 1, nothing=1, log=True)[:, 0],
            between(keys, "brightness", self.brightness, 1, nothing=0)[:, 0],
        )

    def _gamma(self, keys: np.ndarray) -> np.ndarray:
        return between(keys, "gamma", self.gamma, 1, nothing=1, log=True)[:, 0].astype(np.float32)

    def _transforms(self, keys: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Of each example where it is moved, see `geometry.transforms`."""
        stretch = np.sqrt(between(keys, "aspect", self.aspect, 1, nothing=1, log=True))
        scale = between(keys, "scale", self.scale, 1, nothing=1, log=True) * np.hstack([1 / stretch, stretch])
        place = between(keys, "scale.place", (-0.5, 0.5), 2, nothing=0) * np.abs(scale - 1)
        return geometry.transforms(
            size,
            flip=chosen(keys, "flip", self.flip),
            scale=scale,
            angle=between(keys, "rotation", self.rotation, 1, nothing=0)[:, 0],
            shift=place + between(keys, "shift", self.shift, 2, nothing=0),
            perspective=between(keys, "perspective", self.perspective, 2, nothing=0),
        )

    def _worsened(self, photos: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        height = photos.shape[1]

        def blur(photos: tf.Tensor, keys: tf.Tensor) -> tuple[tf.Tensor]:
            def draw(keys: np.ndarray) -> np.ndarray:
                sigma = height * between(keys, "blur.sigma", self.blur_sigma, 1, nothing=0)[:, 0]
                return colour.blur_kernels(sigma, largest=largest)

            assert self.blur_sigma is not None  # needed by blur
            largest = height * self.blur_sigma[1]
            kernels = _drawn(draw, keys, (tf.float32, 2 * colour.blur_reach(largest) + 1))
            return (colour.blur(photos, kernels=kernels),)

        def noise(photos: tf.Tensor, keys: tf.Tensor) -> tuple[tf.Tensor]:
            def draw(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
                deviation = between(keys, "noise.deviation", self.noise_deviation, 1, nothing=0)
                return words(keys, "noise.seed", 1).view(np.int32), deviation[:, 0].astype(np.float32)

            seeds, deviation = _drawn(draw, keys, (tf.int32, 2), (tf.float32,))
            return (colour.add_noise(photos, seeds=seeds, deviation=deviation),)

        def jpeg(photos: tf.Tensor, keys: tf.Tensor) -> tuple[tf.Tensor]:
            def draw(keys: np.ndarray) -> np.ndarray:
                quality = between(keys, "jpeg.quality", self.jpeg_quality, 1, nothing=100)[:, 0]
                return quality.round().astype(np.int32)

            return (colour.compress(photos, quality=_drawn(draw, keys, (tf.int32,))),)

        for name, function in (("blur", blur), ("noise", noise), ("jpeg", jpeg)):
            if probability := getattr(self, name):
                (photos,) = _to_some(name, probability, keys, function, photos)
        return photos

    def _erased(self, photos: tf.Tensor, labels: tf.Tensor, keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if not self.erasing:
            return photos, labels
        height, width = labels.shape[1:]

        def draw(keys: np.ndarray) -> np.ndarray:
            area = between(keys, "erasing.area", self.erasing_area, 1, nothing=0) * height * width
            aspect = between(keys, "erasing.aspect", self.erasing_aspect, 1, nothing=1, log=True)
            # One that would be taller or wider than the photo is cut off there.
            sides = np.minimum(np.hstack([np.sqrt(area * aspect), np.sqrt(area / aspect)]), (height, width))
            sides *= chosen(keys, "erasing", self.erasing)[:, None]
            first = between(keys, "erasing.place", (0, 1), 2, nothing=0) * ((height, width) - sides)
            return np.hstack([first, first + sides]).round().astype(np.int32)

        top, left, bottom, right = tf.split(_drawn(draw, keys, (tf.int32, 4)), 4, axis=1)  # (batch, 1)
        rows, columns = tf.range(height), tf.range(width)
        down, across = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
        hidden = down[:, :, None] & across[:, None, :]
        return (
            tf.where(hidden[..., None], float(PADDING), photos),
            tf.where(hidden, tf.constant(IGNORE, tf.uint8), labels),
        )


def _drawn(draw: Callable, keys: tf.Tensor, *parts: tuple) -> tf.Tensor | list[tf.Tensor]:
    """What `draw` makes of the keys in NumPy, as tensors: type and further dimensions of each are given."""
    types = [part[0] for part in parts]
    # Declared stateless, which it is: of what has a state, deterministic runs would take only one batch at a time.
    made = tf.numpy_function(draw, [keys], types if len(types) > 1 else types[0], stateful=False)
    shaped = [
        tf.ensure_shape(array, (None, *part[1:])) for array, part in zip(tf.nest.flatten(made), parts, strict=True)
    ]
    return shaped if len(shaped) > 1 else shaped[0]


def _to_some(
    name: str, probability: float, keys: tf.Tensor, function: Callable[..., tuple[tf.Tensor, ...]], *batch: tf.Tensor
) -> tuple[tf.Tensor, ...]:
    """The batch with `function(*parts of it, keys)` done to the examples that are chosen, each with `probability`."""
    picks = _drawn(lambda keys: chosen(keys, name, probability), keys, (tf.bool,))
    # 0: the others, 1: the chosen.
    places = tf.dynamic_partition(tf.range(tf.shape(picks)[0]), tf.cast(picks, tf.int32), 2)
    changed = function(*(tf.gather(part, places[1]) for part in batch), tf.gather(keys, places[1]))
    return tuple(
        tf.ensure_shape(tf.tensor_scatter_nd_update(part, places[1][:, None], new), part.shape)
        for part, new in zip(batch, changed, strict=True)
    )


def _probability(name: str, value: float | None) -> float:
    if value is None:
        return 0.0
    if not is_number(value) or not 0 <= value <= 1:
        raise UserError(f"augmentation.{name}={value}: it may be a probability from 0 to 1, or null")
    return float(value)


def _bounds(
    name: str, value: Sequence[float] | None, least: float, most: float, *, needed_by: float = 0
) -> Bounds | None:
    if value is None and not needed_by:
        return None
    pair = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
    if len(pair) == 2 and all(map(is_number, pair)) and least <= pair[0] <= pair[1] <= most:
        return float(pair[0]), float(pair[1])
    got = "null" if value is None else str(value).replace(" ", "")
    otherwise = "" if needed_by else ", or null"
    raise UserError(
        f"augmentation.{name}={got}: it may be two numbers from {least:g} to {most:g}, the lower one first{otherwise}"
    )
