"""Forward passes of all other encoders, with the transformers library."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from jammi_duck.encoder.description import ModelDescription
from jammi_duck.encoder.torch_engine.batch import Batch, each_group
from jammi_duck.encoder.torch_engine.linear import Placement
from jammi_duck.errors import ModelError


class ThroughTransformers:
    """See `families.Transformer`. Sequences of equal length are computed together, without a mask."""

    def __init__(self, config: dict[str, Any], description: ModelDescription, placement: Placement) -> None:
        """Load the model from its safetensors weights; nothing else is read, and no code of its own is run.

        `config` is the content of config.json, without the settings that name code.

        Raises:
            ModelError: transformers does not know the architecture, or the weights do not fit it.
        """
        self._model = _load(config, description, placement)
        self._hidden = self._model.config.hidden_size
        self.vocabulary = int(self._model.get_input_embeddings().num_embeddings)
        self._placement = placement

    def __call__(self, batch: Batch, wanted: Tensor | None = None) -> Tensor:
        """See `Transformer`."""
        hidden = torch.zeros(len(batch.ids), self._hidden, dtype=self._placement.dtype, device=batch.ids.device)
        for ids, found in zip(each_group(batch.ids, batch), each_group(hidden, batch), strict=True):
            ids = ids.squeeze(-1)
            found.copy_(self._model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state)
        return hidden if wanted is None else hidden[wanted]


def _load(config: dict[str, Any], description: ModelDescription, placement: Placement) -> Any:  # noqa: ANN401 - their models have no common type
    import transformers

    transformers.utils.logging.disable_progress_bar()
    try:
        model, report = transformers.AutoModel.from_pretrained(
            description.path,
            config=transformers.AutoConfig.for_model(config["model_type"], **_fields(config)),
            dtype=placement.dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:
        raise ModelError(f"the model '{description.name}' cannot be loaded: {error}") from error
    missing = [key for key in report["missing_keys"] if "pooler" not in key]
    if missing or report["mismatched_keys"]:
        wrong = ", ".join(map(str, [*missing, *report["mismatched_keys"]][:3]))
        raise ModelError(f"the weights of '{description.name}' do not fit its config.json: {wrong}")
    return model.to(placement.device).eval()


def _fields(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in ("model_type", "transformers_version")}
