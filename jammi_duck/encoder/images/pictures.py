"""Reads a picture: a text that stands for one becomes pixels, within limits; what is wrong with it is said."""

from __future__ import annotations

import base64
import binascii
import io
import re
import warnings
from types import ModuleType
from typing import TYPE_CHECKING

from jammi_duck.encoder.blobs import size_of, start_of
from jammi_duck.encoder.images.places import PictureLimits, Places
from jammi_duck.encoder.images.preprocessing import Preprocessing
from jammi_duck.errors import InputError, JammiError, ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

# Few, and common: each is read by another decoder, which has had its own mistakes.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP")
# The most pixels of a picture that is made larger for the model; a square has some 100,000.
_MOST_RESIZED = 50_000_000
# Pillow warns of what it finds odd in a picture; whoever has made warnings errors would lose the row.
_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


class Pictures:
    """Reads pictures from BLOBs and from the places that are allowed."""

    def __init__(self, limits: PictureLimits) -> None:
        """Nothing is read.

        Raises:
            ModelError: Pillow is not installed.
        """
        pillow()
        self._limits = limits
        self._places = Places(limits)

    def pixels(self, text: str, preprocessing: Preprocessing) -> NDArray[np.float32]:
        """The pixels of the picture that a text stands for, as a model takes them.

        Raises:
            InputError: the picture cannot be read.
            EncodingError: nor can any other.
        """
        content = self._content(text)
        try:
            return self._decoded(content, preprocessing)
        except JammiError:
            raise
        except MemoryError:
            raise InputError("there is not enough memory to decode it") from None
        except Exception as error:
            # Decoders of untrusted files raise whatever they stumble over.
            raise InputError(f"it cannot be decoded: {str(error) or type(error).__name__}") from error

    def _content(self, text: str) -> bytes:
        start = start_of(text)
        if start is None:
            return self._places.read(text)
        if size_of(text) > self._limits.max_bytes:
            raise InputError(f"it has more than {self._limits.max_bytes:,} bytes ([images] max_bytes)")
        try:
            return base64.b64decode(text[start:], validate=True)
        except binascii.Error as error:
            raise InputError(f"its base64 is broken: {error}") from error

    def _decoded(self, content: bytes, preprocessing: Preprocessing) -> NDArray[np.float32]:
        image_module = pillow()
        if _QUIET not in warnings.filters:
            warnings.filterwarnings("ignore", module=r"PIL\.")
        try:
            image: Image = image_module.open(io.BytesIO(content), formats=FORMATS)
        except image_module.UnidentifiedImageError:
            raise InputError(f"it is no picture in a format that is read: {', '.join(FORMATS)}") from None
        except image_module.DecompressionBombError:
            raise self._too_large("") from None
        with image:
            self._check_size(image, preprocessing)
            # Of an animation, this is the first frame.
            image.load()
            return preprocessing.pixels(image)

    def _check_size(self, image: Image, preprocessing: Preprocessing) -> None:
        """Refuse what would take too much memory, of which the picture's header has said how much that is."""
        width, height = image.size
        if width < 1 or height < 1:
            raise InputError("it has no pixels")
        if width * height > self._limits.max_pixels:
            raise self._too_large(f", {width:,} x {height:,}")
        wide, high = preprocessing.resized(width, height)
        if wide * high > _MOST_RESIZED:
            raise InputError(
                f"it is {width:,} x {height:,}, which is too long and narrow: with its shorter side at "
                f"{preprocessing.shortest}, as the model takes it, it would have {wide * high:,} pixels"
            )

    def _too_large(self, size: str) -> InputError:
        return InputError(f"it has more than {self._limits.max_pixels:,} pixels ([images] max_pixels){size}")


def pillow() -> ModuleType:
    """Pillow's module `Image`. Raises ModelError if it is not installed."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ModelError("models of pictures need Pillow: pip install 'jammi-duck[images]'") from error
    return Image
