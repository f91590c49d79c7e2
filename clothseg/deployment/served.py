"""The model that MLflow keeps: files of photos in, label maps and areas of clothes out. MLflow runs this file when it
loads one.

It needs Keras, NumPy and Pillow, and not this package, so whoever takes the model away takes all of it.
"""

import base64
import io

import mlflow
import numpy as np
import pandas
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel
from PIL import Image, ImageOps, UnidentifiedImageError

MOST_PIXELS = 25_000_000  # of a photo: all classes of all of its pixels are in memory at once
PAPER = (255, 255, 255)  # behind what is transparent
# Of Pillow's formats those that are programs (Ghostscript runs them) or that unpack without a limit.
NOT_OPENED = ("EPS", "FITS")


class LabelMaps(PythonModel):
    """A trained network behind MLflow's `pyfunc` interface."""

    def load_context(self, context):
        """Opens the network; Keras runs no code out of the file (safe mode)."""
        import keras

        self.network = keras.models.load_model(context.artifacts["network"], compile=False, safe_mode=True)
        self.classes = context.model_config["classes"]
        self.colours = np.array(context.model_config["colours"], np.uint8)

    def predict(self, context, model_input: pandas.DataFrame, params=None):
        """Labels every pixel of photos.

        Args:
            context: of MLflow.
            model_input: a data frame whose column `photo` has the bytes of picture files; in JSON they are base64.
            params: not used.

        Returns:
            A list with a dictionary for every photo: `height` and `width` in pixels; `label_map`, a PNG of that size in
            base64, whose pixel values are classes and which has their colours inside; and `classes`, with the number,
            name, pixels and share (0..1) of every class found, the largest first.

        Raises:
            MlflowException: a photo cannot be read or is too large; as an answer of a server, status 400.
        """
        photos = [_photo(content, place) for place, content in enumerate(model_input["photo"])]
        return [self._labelled(photo) for photo in photos]

    def _labelled(self, photo):
        labels = np.asarray(self.network(photo[None], training=False)["labels"])[0]
        picture = Image.fromarray(labels)
        picture.putpalette(self.colours.tobytes())
        file = io.BytesIO()
        picture.save(file, format="PNG")
        counts = np.bincount(labels.ravel(), minlength=len(self.classes))
        found = [int(number) for number in np.argsort(-counts, kind="stable") if counts[number]]
        return {
            "height": labels.shape[0],
            "width": labels.shape[1],
            "label_map": base64.b64encode(file.getvalue()).decode("ascii"),
            "classes": [
                {
                    "class": number,
                    "name": self.classes[number],
                    "pixels": int(counts[number]),
                    "share": float(counts[number] / labels.size),
                }
                for number in found
            ],
        }


def _photo(content, place):
    """A photo as it is meant to be looked at, uint8 (height, width, 3); as `clothseg.data.photos.read_photo`."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.format in NOT_OPENED:
                raise _refused(f"photo {place} is {image.format}, which is not opened; send JPEG, PNG, WebP or TIFF")
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise _refused(
                    f"photo {place} has {width} x {height} pixels; up to {MOST_PIXELS} work, make it smaller"
                )
            if image.mode == "F":
                raise _refused(f"photo {place} has floating-point grey levels of no known range; 8 and 16 bits work")
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):
                grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535) >> 8
                image = Image.fromarray(grey.astype(np.uint8))
            elif image.has_transparency_data:
                whole = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", whole.size, (*PAPER, 255)), whole)
            return np.asarray(image.convert("RGB"))
    except MlflowException:
        raise
    except Exception as error:  # for broken files Pillow's decoders raise nearly anything
        reason = "no picture file" if isinstance(error, UnidentifiedImageError) else f"{type(error).__name__}: {error}"
        raise _refused(
            f"photo {place} cannot be read ({reason}); send the content of a JPEG, PNG or other picture file in base64"
        ) from error


def _refused(reason):
    return MlflowException.invalid_parameter_value(reason)


mlflow.models.set_model(LabelMaps())
