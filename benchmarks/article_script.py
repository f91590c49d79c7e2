"""The article's script as one would run it: every photo decoded at its full size, then trained on. Nothing of clothseg.

Kevin Kibe, "Deep Learning for Image Segmentation with TensorFlow", Analytics Vidhya. Photos and masks are paired by
name, and masks resized to the nearest label, without which there is nothing to learn. Tells what happens as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from pathlib import Path

import psutil

BEGUN = psutil.Process().create_time()
SIZE, BATCH, BUFFER, CLASSES = (128, 128), 64, 1000, 59


def tell(event: str, **values: float | str) -> None:
    """One line of JSON, with the seconds since the process began."""
    print(json.dumps({"event": event, "seconds": time.time() - BEGUN, **values}), flush=True)


def main() -> None:
    """Trains as the arguments say."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path, help="with photos/NAME.png and masks/NAME.png")
    arguments.add_argument("--encoder", default="DenseNet121")
    arguments.add_argument("--weights", default=None)
    arguments.add_argument("--epochs", type=int, nargs=2, default=(20, 20), help="frozen, fine-tuning")
    arguments.add_argument("--first-step", action="store_true", help="end after the first training step")
    given = arguments.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    import keras
    import tensorflow as tf
    from sklearn.model_selection import train_test_split

    names = sorted(path.stem for path in (given.folder / "masks").iterdir())
    images = [tf.image.decode_png(tf.io.read_file(str(given.folder / "photos" / f"{name}.png"))) for name in names]
    masks = [tf.image.decode_png(tf.io.read_file(str(given.folder / "masks" / f"{name}.png"))) for name in names]
    x = [tf.image.resize(tf.cast(image, tf.float32) / 255.0, SIZE) for image in images]
    y = [tf.cast(tf.image.resize(mask, SIZE, method="nearest"), tf.uint8) for mask in masks]
    train_x, val_x, train_y, val_y = train_test_split(x, y, test_size=0.2, random_state=0)
    training = original = tf.data.Dataset.from_tensor_slices((train_x, train_y))
    validation = tf.data.Dataset.from_tensor_slices((val_x, val_y)).batch(BATCH)

    def crop(image, mask):
        image, mask = tf.image.central_crop(image, 0.7), tf.image.central_crop(mask, 0.7)
        return tf.image.resize(image, SIZE), tf.cast(tf.image.resize(mask, SIZE, method="nearest"), tf.uint8)

    for copy in (
        lambda image, mask: (tf.image.adjust_brightness(image, 0.1), mask),
        lambda image, mask: (tf.image.adjust_gamma(image, 0.1), mask),
        lambda image, mask: (tf.image.adjust_hue(image, -0.1), mask),
        crop,
        lambda image, mask: (tf.image.flip_left_right(image), tf.image.flip_left_right(mask)),
        lambda image, mask: (tf.image.flip_up_down(image), tf.image.flip_up_down(mask)),
    ):
        training = training.concatenate(original.map(copy))
    training = training.cache().shuffle(BUFFER).batch(BATCH).repeat().prefetch(tf.data.AUTOTUNE)

    base = getattr(keras.applications, given.encoder)(include_top=False, weights=given.weights, input_shape=(*SIZE, 3))
    skips = ("conv1_relu", "pool2_relu", "pool3_relu", "pool4_relu", "relu")
    down = keras.Model(base.input, [base.get_layer(name).output for name in skips])
    down.trainable = False
    inputs = keras.Input((*SIZE, 3))
    *finer, features = down(inputs)
    for filters, skip in zip((512, 256, 128, 64), reversed(finer), strict=True):
        features = keras.layers.Conv2DTranspose(
            filters, 3, strides=2, padding="same", use_bias=False,
            kernel_initializer=keras.initializers.RandomNormal(0.0, 0.02),
        )(features)  # fmt: skip
        features = keras.layers.ReLU()(keras.layers.BatchNormalization()(features))
        features = keras.layers.Concatenate()([features, skip])
    logits = keras.layers.Conv2DTranspose(CLASSES, 3, strides=2, padding="same")(features)
    model = keras.Model(inputs, logits)

    class Tell(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.begun = time.perf_counter()

        def on_train_batch_end(self, batch, logs=None):
            if given.first_step:
                tell("first step")
                os._exit(0)

        def on_epoch_end(self, epoch, logs):
            took = time.perf_counter() - self.begun
            phase = "fine_tuning" if down.trainable else "frozen"
            tell("epoch", phase=phase, took=took, accuracy=float(logs["val_accuracy"]))

    epoch = 0
    for count, trainable in zip(given.epochs, (False, True), strict=True):
        down.trainable = trainable
        model.compile(
            optimizer=keras.optimizers.RMSprop(0.001),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        model.fit(
            training, epochs=epoch + count, initial_epoch=epoch, steps_per_epoch=len(train_x) // BATCH,
            validation_data=validation, validation_steps=len(val_x) // BATCH, verbose=0, callbacks=[Tell()],
        )  # fmt: skip
        epoch += count
    tell("end", megabytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main()
