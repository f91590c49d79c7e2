"""The model that MLflow keeps: files of photos in, label maps and areas of clothes out. MLflow runs this file when it
loads one.

It needs Keras, NumPy and Pillow, and not this package, so whoever takes the model away takes all of it.
"""

import base64
import contextlib
import io

import mlflow
import numpy as np
import pandas
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel
from PIL import Image, ImageOps, UnidentifiedImageError

MOST_PIXELS = 25_000_000  # of a photo: all classes of all of its pixels are in memory at once
# Of a request: others wait while it is answered.
MOST_PHOTOS = 256
MOST_BYTES = 200_000_000  # of their files
MOST_PIXELS_TOGETHER = 10 * MOST_PIXELS
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
            MlflowException: a photo cannot be read or is too large, or they are too many or too large together; as an
                answer of a server, status 400.
        """
        contents = list(model_input["photo"])
        _check_request(contents)
        # One is decoded at a time.
        return [self._labelled(_photo(content, place)) for place, content in enumerate(contents)]

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


def _check_request(contents):
    """Refuses what would keep the server busy, and photos that are none, before the first is decoded."""
    size = sum(len(content) for content in contents if isinstance(content, bytes))
    if len(contents) > MOST_PHOTOS or size > MOST_BYTES:
        raise _refused(
            f"{len(contents)} photos of {size} bytes; up to {MOST_PHOTOS} of {MOST_BYTES} bytes work in a request"
        )
    pixels = 0
    for place, content in enumerate(contents):
        with _opened(content, place) as image:
            pixels += image.width * image.height
    if pixels > MOST_PIXELS_TOGETHER:
        raise _refused(f"photos of {pixels} pixels together; up to {MOST_PIXELS_TOGETHER} work in a request")


def _photo(content, place):
    """A photo as it is meant to be looked at, uint8 (height, width, 3); as `clothseg.data.photos.read_photo`."""
    with _opened(content, place) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):
            grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535) >> 8
            image = Image.fromarray(grey.astype(np.uint8))
        elif image.has_transparency_data:
            whole = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", whole.size, (*PAPER, 255)), whole)
        return np.asarray(image.convert("RGB"))


@contextlib.contextmanager
def _opened(content, place):
    """A picture, which is not decoded yet; whatever is raised meanwhile becomes an answer."""
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
            yield image
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
