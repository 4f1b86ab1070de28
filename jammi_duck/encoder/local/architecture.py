"""What config.json means in the families that have a forward pass of our own: the same for every engine.

BERT (Devlin et al. 2018), RoBERTa (Liu et al. 2019), DistilBERT (Sanh et al. 2019), MPNet (Song et al. 2020),
ModernBERT (Warner et al. 2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jammi_duck.encoder.description import hidden_size

Config = Mapping[str, Any]

# Activations of layers by their names in config.json; several are the same.
ACTIVATIONS: Mapping[str, str] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


@dataclass(frozen=True)
class Names:
    """The names that a family gives to the parts of a layer, and the prefix of a model with a head.

    It may also have vectors for the types of tokens, and biases for buckets of relative positions.
    """

    prefix: str
    layer: str
    query: str
    key: str
    value: str
    mixed: str
    attention_norm: str
    up: str
    down: str
    output_norm: str
    has_types: bool = False
    has_buckets: bool = False


def _of_bert(prefix: str) -> Names:
    return Names(
        prefix, "encoder.layer.{}.", "attention.self.query", "attention.self.key", "attention.self.value",
        "attention.output.dense", "attention.output.LayerNorm", "intermediate.dense", "output.dense",
        "output.LayerNorm", has_types=True,
    )  # fmt: skip


# Families with learned positions, and norms after each part.
NAMES: Mapping[str, Names] = {
    "bert": _of_bert("bert."),
    **dict.fromkeys(("roberta", "camembert", "xlm-roberta"), _of_bert("roberta.")),
    "mpnet": Names(
        "mpnet.", "encoder.layer.{}.", "attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o",
        "attention.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm", has_buckets=True,
    ),
    "distilbert": Names(
        "distilbert.", "transformer.layer.{}.", "attention.q_lin", "attention.k_lin", "attention.v_lin",
        "attention.out_lin", "sa_layer_norm", "ffn.lin1", "ffn.lin2", "output_layer_norm",
    ),
}  # fmt: skip

# MPNet's relative positions.
BUCKETS = 32
_PADDING_OF_MPNET = 1

# Defaults for settings that a config.json leaves out.
_OF_BERT = {
    "vocab_size": 30522, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "hidden_act": "gelu", "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
}  # fmt: skip
_OF_ROBERTA = {**_OF_BERT, "vocab_size": 50265, "pad_token_id": 1}
_DEFAULTS: dict[str, Config] = {
    "bert": _OF_BERT,
    "roberta": _OF_ROBERTA,
    "camembert": {**_OF_ROBERTA, "vocab_size": 30522},
    "xlm-roberta": {**_OF_ROBERTA, "vocab_size": 30522},
    "mpnet": {**_OF_BERT, "vocab_size": 30527},
    "distilbert": {
        "vocab_size": 30522, "max_position_embeddings": 512, "n_layers": 6, "n_heads": 12, "dim": 768,
        "hidden_dim": 3072, "activation": "gelu",
    },
    "modernbert": {
        "vocab_size": 50368, "num_hidden_layers": 22, "num_attention_heads": 12, "hidden_size": 768,
        "intermediate_size": 1152, "hidden_activation": "gelu", "norm_eps": 1e-5, "norm_bias": False,
        "attention_bias": False, "mlp_bias": False, "local_attention": 128, "global_attn_every_n_layers": 3,
        "global_rope_theta": 160_000.0, "local_rope_theta": 10_000.0,
    },
}  # fmt: skip


def completed(config: Config) -> dict[str, Any] | None:
    """A config.json with its family's defaults, in BERT's words where another family has its own.

    None if the family, or a setting, has no forward pass of our own.
    """
    family = config["model_type"]
    if family not in _DEFAULTS or not _is_usual(config):
        return None
    settings = {**_DEFAULTS[family], **config}
    if family == "distilbert":
        settings |= {
            "num_attention_heads": settings["n_heads"],
            "num_hidden_layers": settings["n_layers"],
            "intermediate_size": settings["hidden_dim"],
            "hidden_act": settings["activation"],
            "layer_norm_eps": 1e-12,
        }
    if family == "modernbert":
        settings |= {"layer_norm_eps": settings["norm_eps"], "hidden_act": settings["hidden_activation"]}
    return settings


def padding(config: Config) -> int | None:
    """The token id from which RoBERTa and MPNet count their positions; None in other families."""
    family = config["model_type"]
    if family == "mpnet":
        return _PADDING_OF_MPNET
    found: int | None = None if family in ("bert", "distilbert") else config["pad_token_id"]
    return found


def local_layers(config: Config) -> list[bool]:
    """Which layers of a ModernBERT attend only to tokens nearby."""
    layers, every = config["num_hidden_layers"], config["global_attn_every_n_layers"]
    kinds = ["sliding_attention" if number % every else "full_attention" for number in range(layers)]
    return [kind == "sliding_attention" for kind in config.get("layer_types") or kinds]


def rotary_bases(config: Config) -> tuple[float, float]:
    """The bases of the angles by which a ModernBERT turns queries and keys: where it attends everywhere, and nearby."""
    ropes = config.get("rope_parameters") or {}

    def base(kind: str, default: float) -> float:
        return float((ropes.get(kind) or {}).get("rope_theta", default))

    return (
        base("full_attention", config["global_rope_theta"]),
        base("sliding_attention", config["local_rope_theta"]),
    )


def _is_usual(config: Config) -> bool:
    """Whether the forward passes support all settings."""
    activation = config.get("hidden_act", config.get("hidden_activation", config.get("activation", "gelu")))
    ropes = [config.get("rope_scaling"), *(config.get("rope_parameters") or {}).values()]
    return (
        activation in ACTIVATIONS
        and config.get("position_embedding_type", "absolute") == "absolute"
        and not config.get("add_cross_attention")
        and config.get("embedding_size", hidden_size(config)) == hidden_size(config)
        and all(rope is None or rope.get("rope_type", "default") == "default" for rope in ropes)
        and config.get("local_attention", 128) >= 2
    )
