"""Changing what photos look like, with a strength of its own for each; labels stay as they are.

Photos are float32 (batch, height, width, 3) in 0..255, or one of them, and so are the results.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import tensorflow as tf

LUMA = np.array([0.299, 0.587, 0.114])
YIQ = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def mixtures(*, saturation: np.ndarray, hue: np.ndarray) -> np.ndarray:
    """Matrices that change saturation and hue of colours (red, green, blue), and leave their luma as it is.

    The hue is turned in the plane of chroma of YIQ, which unlike that of HSV does not jump between colours that are
    nearly grey, and takes one product per pixel.

    Args:
        saturation: (batch,), factors; 0 makes photos grey.
        hue: (batch,), parts of a full circle, from red towards yellow.

    Returns:
        float32 (batch, 3, 3), for a product with colours from the left.
    """
    angle = 2 * np.pi * hue
    turned = np.zeros((len(hue), 3, 3))
    turned[:, 0, 0] = 1
    turned[:, 1, 1] = turned[:, 2, 2] = saturation * np.cos(angle)
    turned[:, 1, 2] = saturation * np.sin(angle)
    turned[:, 2, 1] = saturation * -np.sin(angle)
    return (np.linalg.inv(YIQ) @ turned @ YIQ).astype(np.float32)


def change_colours(photo: np.ndarray, *, mixture: np.ndarray, contrast: float, brightness: float) -> np.ndarray:
    """Saturation, hue, contrast and brightness of one photo in one go.

    Args:
        photo: float32 (height, width, 3).
        mixture: float32 (3, 3), from `mixtures`.
        contrast: factor by which values move away from the photo's mean luma.
        brightness: is added, in parts of the range of values.
    """
    offset = cv2.mean(photo)[:3] @ LUMA * (1 - contrast) + 255 * brightness
    # By OpenCV: products with so few columns are slow.
    changed = cv2.transform(photo, np.column_stack([mixture * contrast, np.full(3, offset)]))
    return np.clip(changed, 0, 255, out=changed)


def change_gamma(photo: np.ndarray, *, gamma: np.float32) -> np.ndarray:
    """Raises the values of a photo float32 (height, width, 3), in 0..1, to a power; above 1 it becomes darker."""
    # A fifth of the time of a power; the smallest number keeps the logarithm finite.
    levels = np.maximum(photo / 255, np.float32(1e-6))
    np.log(levels, out=levels)
    levels *= gamma
    return np.exp(levels, out=levels) * np.float32(255)


def blur_kernels(sigma: np.ndarray, *, largest: float) -> np.ndarray:
    """Gaussian weights of a pixel and its neighbours in one direction.

    Args:
        sigma: (batch,), pixels.
        largest: the largest that sigma may become.

    Returns:
        float32 (batch, taps), with an odd number of taps and a sum of 1.
    """
    reach = blur_reach(largest)
    away = np.arange(-reach, reach + 1) / np.maximum(sigma, 1e-3)[:, None]
    kernels = np.exp(-0.5 * away**2)
    return (kernels / kernels.sum(axis=1, keepdims=True)).astype(np.float32)


def blur_reach(largest: float) -> int:
    """How many pixels to each side a blur takes in."""
    return max(1, math.ceil(2.5 * largest))


def blur(photos: tf.Tensor, *, kernels: tf.Tensor) -> tf.Tensor:
    """Blurs by float32 (batch, taps), from `blur_kernels`, in both directions; edges are mirrored."""
    taps = kernels.shape[1]
    for axis in (1, 2):
        padding = [(taps // 2, taps // 2) if other == axis else (0, 0) for other in range(4)]
        padded, size = tf.pad(photos, padding, "SYMMETRIC"), photos.shape[axis]
        photos = tf.add_n(
            [
                kernels[:, tap, None, None, None]
                * (padded[:, tap : tap + size] if axis == 1 else padded[:, :, tap : tap + size])
                for tap in range(taps)
            ]
        )
    return photos


def add_noise(photos: tf.Tensor, *, seeds: tf.Tensor, deviation: tf.Tensor) -> tf.Tensor:
    """Adds Gaussian noise, independent for every value.

    Args:
        photos: (batch, height, width, 3).
        seeds: int32 (batch, 2), of each photo's noise.
        deviation: float32 (batch,), of values in 0..255.
    """

    def one(part: tuple[tf.Tensor, ...]) -> tf.Tensor:
        photo, seed, strength = part
        return photo + strength * tf.random.stateless_normal(tf.shape(photo), seed)

    return tf.clip_by_value(_one_by_one(one, photos, seeds, deviation), 0, 255)


def compress(photos: tf.Tensor, *, quality: tf.Tensor) -> tf.Tensor:
    """Writes photos as JPEG of a quality in 1..100, int32 (batch,), and reads them again."""

    def one(part: tuple[tf.Tensor, ...]) -> tf.Tensor:
        photo, quality = part
        data = tf.raw_ops.EncodeJpegVariableQuality(images=tf.cast(tf.round(photo), tf.uint8), quality=quality)
        return tf.cast(tf.io.decode_jpeg(data, channels=3), tf.float32)

    return _one_by_one(one, photos, quality)


def _one_by_one(function, photos: tf.Tensor, *parts: tf.Tensor) -> tf.Tensor:
    each = tf.TensorSpec(photos.shape[1:], photos.dtype)
    return tf.ensure_shape(tf.map_fn(function, (photos, *parts), fn_output_signature=each), photos.shape)
