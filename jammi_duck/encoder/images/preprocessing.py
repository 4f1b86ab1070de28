"""How a picture becomes the numbers that a model takes: resized, cropped in its centre, normalised.

The rules of open_clip and of transformers differ in small ways, which change pixels: open_clip brings a picture to RGB
at the end and rounds where it crops, transformers does so at the beginning, with white behind what is transparent.
Neither turns a picture as its EXIF data say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jammi_duck.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

# Those of OpenAI's CLIP.
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_BILINEAR, _BICUBIC = 2, 3
# Filters by Pillow's numbers.
_FILTERS = (0, 1, 2, 3, 4, 5)
_ALWAYS = ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb")


@dataclass(frozen=True)
class Preprocessing:
    """The settings of a model: the picture is resized until its shorter side is `shortest`, and cropped to `size`.

    Without `shortest`, both sides become `size`. `resample` is the number of Pillow's filter.
    """

    size: int
    shortest: int | None
    resample: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float
    as_open_clip: bool

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """The width and the height before the crop."""
        if self.shortest is None:
            return self.size, self.size
        longer = int(self.shortest * max(width, height) / min(width, height))
        return (self.shortest, longer) if width <= height else (longer, self.shortest)

    def pixels(self, image: Image) -> NDArray[np.float32]:
        """The numbers of a picture, [3, size, size]."""
        if not self.as_open_clip:
            image = _on_white(image)
        wanted = self.resized(*image.size)
        if image.size != wanted:
            image = image.resize(wanted, self.resample)
        left, top = (self._start(length) for length in wanted)
        image = image.crop((left, top, left + self.size, top + self.size))
        numbers = np.asarray(_as_rgb(image), np.float32) * np.float32(self.scale)
        normal = (numbers - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return np.ascontiguousarray(normal.transpose(2, 0, 1))

    def _start(self, length: int) -> int:
        """Where the crop begins."""
        spare = length - self.size
        return round(spare / 2) if self.as_open_clip else spare // 2


def of_open_clip(settings: Mapping[str, Any], size: int, name: str) -> Preprocessing:
    """What an open_clip_config.json says in its preprocess_cfg.

    Raises:
        ModelError: it says what is not supported.
    """
    mode, filter_ = settings.get("resize_mode", "shortest"), settings.get("interpolation", "bicubic")
    wanted = settings.get("size", size)
    if mode not in ("shortest", "squash") or filter_ not in ("bicubic", "bilinear", "random"):
        raise _not_supported(name, f"resize_mode = '{mode}' with interpolation = '{filter_}'")
    if _square(wanted) != size:
        raise _not_supported(name, f"size = {wanted}, where the model takes {size}")
    return Preprocessing(
        size=size,
        shortest=None if mode == "squash" else size,
        resample=_BILINEAR if filter_ == "bilinear" else _BICUBIC,
        mean=_three(settings.get("mean") or _MEAN, name),
        std=_three(settings.get("std") or _STD, name),
        scale=1 / 255,
        as_open_clip=True,
    )


def of_transformers(settings: Mapping[str, Any], size: int, name: str) -> Preprocessing:
    """What a preprocessor_config.json says.

    Raises:
        ModelError: it says what is not supported.
    """
    for step in _ALWAYS:
        if settings.get(step) is False:
            raise _not_supported(name, f"{step} = false")
    crops = settings.get("do_center_crop") is not False
    given, crop = settings.get("size") or {"shortest_edge": size}, settings.get("crop_size") or size
    shortest = given if isinstance(given, int) else given.get("shortest_edge")
    resample = settings.get("resample", _BICUBIC)
    final = _square(crop) if crops else _square(given)
    if final != size or (shortest is None and _square(given) != size) or (shortest and shortest < size):
        raise _not_supported(name, f"size = {given} and crop_size = {crop}, where the model takes {size}")
    if resample not in _FILTERS:
        raise _not_supported(name, f"resample = {resample}")
    return Preprocessing(
        size=size,
        shortest=shortest,
        resample=resample,
        mean=_three(settings.get("image_mean") or _MEAN, name),
        std=_three(settings.get("image_std") or _STD, name),
        scale=float(settings.get("rescale_factor") or 1 / 255),
        as_open_clip=False,
    )


def _square(size: Any) -> int | None:  # noqa: ANN401 - of JSON
    """The side of a square, however it is given."""
    if isinstance(size, Mapping):
        size = (size.get("height"), size.get("width"))
    sides = set(size) if isinstance(size, list | tuple) else {size}
    side = sides.pop()
    return side if not sides and isinstance(side, int) else None


def _three(numbers: Any, name: str) -> tuple[float, ...]:  # noqa: ANN401 - of JSON
    found = tuple(map(float, numbers))
    if len(found) != 3 or not all(map(math.isfinite, found)):
        raise _not_supported(name, f"a mean or a deviation of {numbers}")
    return found


def _not_supported(name: str, what: str) -> ModelError:
    return ModelError(f"the model '{name}' prepares pictures with {what}, which is not supported")


def _as_rgb(image: Image) -> Image:
    if image.mode == "RGB":
        return image
    # Pillow would warn that a list of transparent colours is lost, as is meant here.
    image.info.pop("transparency", None)
    return image.convert("RGB")


def _on_white(image: Image) -> Image:
    """A picture in RGB, with white where it is transparent."""
    if "A" not in image.getbands() and image.info.get("transparency") is None:
        return _as_rgb(image)
    from PIL.Image import alpha_composite, new

    white = new("RGBA", image.size, (255, 255, 255, 255))
    return alpha_composite(white, image.convert("RGBA")).convert("RGB")
