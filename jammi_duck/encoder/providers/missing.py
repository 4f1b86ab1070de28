"""Ids that others have and we do not: each says what would serve."""

from __future__ import annotations

from typing import ClassVar

from jammi_duck.encoder.functions import EmbeddingFunction
from jammi_duck.errors import NoModelError

_OPENAI = (
    "put a server before it that speaks OpenAI's protocol (such as the package litellm), and use "
    "openai:MODEL?base_url=http://…, or register a function of your own that calls it"
)
_CLIP = "open-clip puts pictures and texts into one space: open-clip:ViT-B-32"


class _Missing(EmbeddingFunction):
    instead: ClassVar[str] = ""

    def __post_init__(self) -> None:
        """Say what would serve.

        Raises:
            NoModelError: always.
        """
        raise NoModelError(f"'{self.id}' is not among the providers of jammi_duck: {self.instead}")


class ImageBind(_Missing):
    """ImageBind's weights are a pickle, and its code a package of Meta's that needs torchvision and torchaudio."""

    instead: ClassVar[str] = f"its weights are a pickle, which is never read; {_CLIP}"


class SigLip(_Missing):
    """SigLIP."""

    instead: ClassVar[str] = _CLIP


class ColPali(_Missing):
    """ColPali."""

    instead: ClassVar[str] = f"it gives many vectors for a picture, and embedding tables have one for each row; {_CLIP}"


class Bedrock(_Missing):
    """Amazon Bedrock, whose requests are signed by boto3."""

    instead: ClassVar[str] = f"its requests are signed by the package boto3; {_OPENAI}"


class WatsonX(_Missing):
    """IBM watsonx, which the package ibm-watsonx-ai calls."""

    instead: ClassVar[str] = f"the package ibm-watsonx-ai calls it; {_OPENAI}"


class Instructor(_Missing):
    """INSTRUCTOR, whose models have an instruction for each text."""

    instead: ClassVar[str] = (
        "the package InstructorEmbedding runs it; sentence-transformers:NAME runs models with fixed prompts"
    )


class GteText(_Missing):
    """GTE."""

    instead: ClassVar[str] = "the same models are huggingface:thenlper/gte-base and others"
