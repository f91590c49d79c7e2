"""The model that MLflow keeps: raw photos in, label maps out. MLflow runs this file when it loads one.

It needs Keras and NumPy, and not this package, so whoever takes the model away takes all of it.
"""

import mlflow
import numpy as np


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
        labels = np.empty(photos.shape[:3], np.uint8)
        for row, photo in enumerate(photos):
            resized = keras.ops.image.resize(photo[None].astype("float32"), network_size)
            logits = keras.ops.image.resize(self.network(resized, training=False), size)
            labels[row] = keras.ops.convert_to_numpy(keras.ops.argmax(logits, axis=-1))[0]
        return labels


mlflow.models.set_model(LabelMaps())
