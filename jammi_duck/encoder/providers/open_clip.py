"""CLIP of open_clip: texts and pictures in one space."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jammi_duck.encoder.providers.local import LocalFunction
from jammi_duck.errors import InputError, ModelError, did_you_mean, enumerated

if TYPE_CHECKING:
    from jammi_duck.encoder import Encoder, Encoders

# Where the weights of open_clip's architectures are, by what they were trained with; the first is the usual one.
_REPOSITORIES = {
    "ViT-B-32": {
        "laion2b_s34b_b79k": "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        "datacomp_xl_s13b_b90k": "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K",
    },
    "ViT-B-16": {
        "laion2b_s34b_b88k": "laion/CLIP-ViT-B-16-laion2B-s34B-b88K",
        "datacomp_xl_s13b_b90k": "laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K",
    },
    "ViT-L-14": {
        "laion2b_s32b_b82k": "laion/CLIP-ViT-L-14-laion2B-s32B-b82K",
        "datacomp_xl_s13b_b90k": "laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K",
    },
    "ViT-H-14": {"laion2b_s32b_b79k": "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"},
    "ViT-g-14": {"laion2b_s34b_b88k": "laion/CLIP-ViT-g-14-laion2B-s34B-b88K"},
    "ViT-bigG-14": {"laion2b_s39b_b160k": "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k"},
    "ViT-B-32-quickgelu": {"openai": "timm/vit_base_patch32_clip_224.openai"},
    "ViT-B-16-quickgelu": {"openai": "timm/vit_base_patch16_clip_224.openai"},
    "ViT-L-14-quickgelu": {"openai": "timm/vit_large_patch14_clip_224.openai"},
    "ViT-L-14-336-quickgelu": {"openai": "timm/vit_large_patch14_clip_336.openai"},
}
_FOLDER = re.compile(r"[./~]")


class OpenClip(LocalFunction):
    """A CLIP model, in this process. A value is a picture: its bytes, its path or its URL; a query may be a text, too.

    Args:
        name: an architecture of open_clip, a repository of the hub, or a directory.
        pretrained: what an architecture was trained with, as open_clip calls it; the usual one by default.

    Example:
        >>> get_registry().get("open-clip").create(name="ViT-B-32")
    """

    name: str = "ViT-B-32"
    pretrained: str = ""

    def takes_images(self, encoders: Encoders) -> bool:
        """See `EmbeddingFunction.takes_images`."""
        return True

    def encoder(self, encoders: Encoders) -> Encoder:
        """See `EmbeddingFunction.encoder`. It is that of the repository, so it is the same model to SQL.

        Raises:
            InputError: there is no such architecture, or it was not trained so.
            ModelError: the model cannot be found or loaded, or takes no pictures.
        """
        found = encoders.get(self._found())
        if not found.takes_images:
            raise ModelError(f"the model '{self.name}' takes no pictures: it is no CLIP; leave '{self.id}:' out")
        return found

    def compute_source_embeddings(self, values: Any) -> list[Any]:  # noqa: ANN401 - see the base
        """See `EmbeddingFunction.compute_source_embeddings`: of pictures."""
        return list(self._encoder.encode(_as_texts(values)))

    def compute_query_embeddings(self, query: Any) -> list[Any]:  # noqa: ANN401 - see the base
        """See `EmbeddingFunction.compute_query_embeddings`: of a text, or of a picture's bytes."""
        return list(self._encoder.encode(_as_texts(query), "query"))

    @cached_property
    def _encoder(self) -> Encoder:
        from jammi_duck.config.settings import load
        from jammi_duck.encoder.images.places import PictureLimits
        from jammi_duck.encoder.loaded import LoadedEncoders

        return self.encoder(LoadedEncoders(32, 3, device=self._device(), images=PictureLimits.of(load().config)))

    def _found(self) -> str:
        """The name of the model as that of a local one."""
        from jammi_duck.encoder.names import OPEN_CLIP_FILES, fetch

        trained = _REPOSITORIES.get(self.name)
        name = self.name if trained is None else trained.get(self.pretrained or next(iter(trained)))
        if name is None:
            known = enumerated(list(trained or ()))
            raise InputError(f"'{self.name}' has no pretrained '{self.pretrained}'; there are: {known}")
        if trained is None:
            self._check_name()
        if name.count("/") == 1 and not _FOLDER.match(name):
            fetch(name, OPEN_CLIP_FILES)
        return name

    def _check_name(self) -> None:
        """Raise InputError if the name is no architecture's, and cannot be a repository or a directory."""
        known = enumerated(list(_REPOSITORIES))
        if self.pretrained:
            raise InputError(f"pretrained of '{self.id}' is for an architecture: {known}")
        if "/" not in self.name and not _FOLDER.match(self.name) and not Path(self.name).is_dir():
            near = did_you_mean(self.name, _REPOSITORIES) or ";"
            raise InputError(
                f"'{self.id}' has no architecture '{self.name}'{near} there are: {known}; or give a repository of the "
                "Hugging Face hub, such as 'org/model', or a directory"
            )


def _as_texts(values: Any) -> Sequence[str]:  # noqa: ANN401 - a list, a column, or one value
    from jammi_duck.encoder.blobs import blob_of

    every = [values] if isinstance(values, str | bytes) else getattr(values, "to_pylist", lambda: list(values))()
    return [blob_of(each) if isinstance(each, bytes) else each for each in every]
