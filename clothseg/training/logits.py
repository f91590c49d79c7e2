"""Logits beside labels of another size."""

from __future__ import annotations

from typing import Any

from keras import ops


def at_size_of(labels: Any, logits: Any) -> Any:
    """Logits at the size of the labels.

    Args:
        labels: (batch, height, width).
        logits: float (batch, own height, own width, classes), of a decoder that ends at a coarser stride.

    Returns:
        float (batch, height, width, classes), resized bilinearly where the sizes differ.
    """
    size = tuple(labels.shape[1:3])
    return logits if tuple(logits.shape[1:3]) == size else ops.image.resize(logits, size, interpolation="bilinear")
