"""The model that MLflow keeps: raw photos in, label maps out. MLflow runs this file when it loads one.

It needs Keras and NumPy, and not this package, so whoever takes the model away takes all of it.
"""

import mlflow
import numpy as np

PADDING = 127  # grey level around a photo that keeps its shape, as in training


class LabelMaps(mlflow.pyfunc.PythonModel):
    """A trained network behind MLflow's `pyfunc` interface."""

    def load_context(self, context):
        """Opens the network; Keras runs no code out of the file (safe mode)."""
        import keras

        self.network = keras.models.load_model(context.artifacts["network"], compile=False, safe_mode=True)

    def predict(self, context, model_input: np.ndarray, params=None) -> np.ndarray:
        """Labels every pixel.

        Args:
            context: of MLflow.
            model_input: photos uint8 (batch, height, width, 3) in 0..255, of any size.
            params: not used.

        Returns:
            uint8 (batch, height, width), the class of every pixel at the photos' own size: logits at the network's
            size, resized bilinearly, then the highest.
        """
        import keras

        photos = np.asarray(model_input)
        if photos.ndim != 4 or photos.shape[-1] != 3:
            raise ValueError(
                f"photos have the shape {photos.shape}; what works is (batch, height, width, 3), RGB in 0..255"
            )
        size, network_size = photos.shape[1:3], self.network.input_shape[1:3]
        top, left, height, width = _frame(size, network_size, resize=(context.model_config or {}).get("resize"))
        below, right = network_size[0] - top - height, network_size[1] - left - width
        labels = np.empty(photos.shape[:3], np.uint8)
        for row, photo in enumerate(photos):
            fitted = keras.ops.image.resize(photo[None].astype("float32"), (height, width))
            fitted = keras.ops.pad(fitted, ((0, 0), (top, below), (left, right), (0, 0)), constant_values=PADDING)
            logits = keras.ops.image.resize(self.network(fitted, training=False), network_size)
            logits = keras.ops.image.resize(logits[:, top : top + height, left : left + width], size)
            labels[row] = keras.ops.convert_to_numpy(keras.ops.argmax(logits, axis=-1))[0]
        return labels


def _frame(size, network_size, *, resize):
    """Top, left, height and width of a photo in what the network is shown; see `clothseg.data.prepared.frame_of`."""
    if resize != "pad":
        return 0, 0, *network_size
    scale = min(wanted / have for wanted, have in zip(network_size, size, strict=True))
    height, width = (max(1, min(wanted, round(have * scale))) for wanted, have in zip(network_size, size, strict=True))
    return (network_size[0] - height) // 2, (network_size[1] - width) // 2, height, width


mlflow.models.set_model(LabelMaps())
