"""A backbone that builds and runs in no time, as a user would write one of their own; for tests that train."""

from __future__ import annotations

from typing import Any


def small(photo: Any) -> list[Any]:
    """Photos (batch, height, width, 3), 0..255, to feature maps at strides 2, 4, 8, 16 and 32."""
    from keras import layers

    features, maps = layers.Rescaling(1 / 127.5, -1)(photo), []
    for stage, filters in enumerate((8, 16, 24, 32, 48), 1):
        features = layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False, name=f"conv_{stage}")(features)
        features = layers.BatchNormalization(momentum=0.9, name=f"norm_{stage}")(features)
        features = layers.ReLU(name=f"relu_{stage}")(features)
        maps.append(features)
    return maps


# Command-line options that choose it.
SMALL_BACKBONE = ("backbone=mobilenetv2", "backbone.name=small_backbone:small", "backbone.weights=null")
