"""Small models with random weights, one of each family, in the directories that sentence-transformers writes.

    family = Families(folder)["bert"]                   # transformers' own directory, no modules.json
    path = save(family, folder / "x", pooling="max")    # the same with modules

The weights are large enough that attention, positions and activations all show in the vectors.
"""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling
from tokenizers import (
    AddedToken,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from tests.texts import corpus

LIMIT = 64
VOCABULARY = 700
WORD_PIECE = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
BYTE_LEVEL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
MPNET = ("<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>")
SHAPE = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}
POOLING = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


def word_piece(special: Sequence[str] = WORD_PIECE) -> dict[str, int]:
    unknown = next(token for token in special if "UNK" in token)
    tokenizer = Tokenizer(models.WordPiece(unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=list(special), show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer.get_vocab()


def byte_level(special: Sequence[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def unigram(normalizer: normalizers.Normalizer | None = None) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCABULARY, special_tokens=list(BYTE_LEVEL), unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def framed(tokenizer: Tokenizer, first: str, last: str, between: str = "") -> Tokenizer:
    """With the special tokens before and after each text, and `between` the two of a pair, by default `last`."""
    ids = [(token, tokenizer.token_to_id(token)) for token in (first, last)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", pair=f"{first} $A {between or last} $B {last}", special_tokens=ids
    )
    return tokenizer


def bert_tokenizer() -> transformers.PreTrainedTokenizerBase:
    return transformers.BertTokenizer(vocab=word_piece(), model_max_length=LIMIT)


def distilbert_tokenizer() -> transformers.PreTrainedTokenizerBase:
    return transformers.DistilBertTokenizer(vocab=word_piece(), model_max_length=LIMIT)


def mpnet_tokenizer() -> transformers.PreTrainedTokenizerBase:
    return transformers.MPNetTokenizer(vocab=word_piece(MPNET), model_max_length=LIMIT)


def roberta_tokenizer() -> transformers.PreTrainedTokenizerBase:
    model = json.loads(byte_level(BYTE_LEVEL).to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    return transformers.RobertaTokenizer(vocab=model["vocab"], merges=merges, model_max_length=LIMIT)


def camembert_tokenizer() -> transformers.PreTrainedTokenizerBase:
    vocabulary = [tuple(entry) for entry in json.loads(unigram().to_str())["model"]["vocab"]]
    return transformers.CamembertTokenizer(vocab=vocabulary, additional_special_tokens=[], model_max_length=LIMIT)


def xlm_roberta_tokenizer() -> transformers.PreTrainedTokenizerBase:
    """Taken as tokenizer.json says: with a normalizer, which the class made for this family would leave out."""
    return PreTrainedTokenizerFast(
        tokenizer_object=framed(unigram(normalizers.NFKC()), "<s>", "</s>", "</s> </s>"),
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token=AddedToken("<mask>", lstrip=True, special=True),
        model_max_length=LIMIT,
    )


def modernbert_tokenizer() -> transformers.PreTrainedTokenizerBase:
    return PreTrainedTokenizerFast(
        tokenizer_object=framed(byte_level(WORD_PIECE), "[CLS]", "[SEP]"),
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        mask_token=AddedToken("[MASK]", lstrip=True, special=True),
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=LIMIT,
    )


@dataclass(frozen=True)
class Family:
    """How to make one: its tokenizer, its configuration, and the largest file that its weights may fill."""

    tokenizer: Callable[[], transformers.PreTrainedTokenizerBase]
    config: type[transformers.PreTrainedConfig]
    options: dict[str, object]
    shard: str = "1GB"


FAMILIES = {
    "bert": Family(bert_tokenizer, transformers.BertConfig, {"max_position_embeddings": 80}),
    "roberta": Family(
        roberta_tokenizer,
        transformers.RobertaConfig,
        {"max_position_embeddings": LIMIT + 2, "type_vocab_size": 1, "layer_norm_eps": 1e-5},
        shard="100KB",
    ),
    "distilbert": Family(
        distilbert_tokenizer,
        transformers.DistilBertConfig,
        {"dim": 48, "n_layers": 3, "n_heads": 4, "hidden_dim": 96, "max_position_embeddings": 80},
    ),
    "camembert": Family(
        camembert_tokenizer, transformers.CamembertConfig, {"max_position_embeddings": LIMIT + 2, "type_vocab_size": 1}
    ),
    "xlm-roberta": Family(
        xlm_roberta_tokenizer,
        transformers.XLMRobertaConfig,
        {"max_position_embeddings": LIMIT + 2, "type_vocab_size": 1, "layer_norm_eps": 1e-5},
    ),
    "mpnet": Family(mpnet_tokenizer, transformers.MPNetConfig, {"max_position_embeddings": LIMIT + 2}),
    # Four layers are global, local, local, global; a text of more than nine tokens is longer than the window.
    "modernbert": Family(
        modernbert_tokenizer,
        transformers.ModernBertConfig,
        {"num_hidden_layers": 4, "local_attention": 16, "max_position_embeddings": 256},
        shard="100KB",
    ),
    "electra": Family(
        bert_tokenizer, transformers.ElectraConfig, {"embedding_size": 32, "max_position_embeddings": 80}
    ),
}


class Families:
    """The directories of the families, each made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_dir():
            make(FAMILIES[name], path)
        return path


def make(
    family: Family,
    path: Path,
    auto: type = transformers.AutoModel,
    dtype: torch.dtype = torch.float32,
    **changes: object,
) -> Path:
    """Save a model of this family as transformers does: config.json, weights, tokenizer. `changes` go to its config."""
    tokenizer = family.tokenizer()
    spread = 1 / math.sqrt(SHAPE["hidden_size"])
    shape = {} if "dim" in family.options else SHAPE
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos", "cls", "sep")}
    ids = {name: number for name, number in ids.items() if number is not None}
    options = {
        **shape,
        "vocab_size": len(tokenizer) + 3,
        "initializer_range": spread,
        **ids,
        **family.options,
        **changes,
    }
    config = family.config(**options)
    torch.manual_seed(7)
    model = auto.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.ndim == 1:  # biases are made as zeros and norms as ones, which would hide their absence
                tensor += torch.randn_like(tensor) * 0.1
            if "relative_attention_bias" in name:
                tensor += torch.randn_like(tensor)
    model.to(dtype).save_pretrained(path, max_shard_size=family.shard)
    tokenizer.save_pretrained(path)
    return path


def save(
    family: Path,
    path: Path,
    pooling: str | Sequence[str] = "mean",
    *extra: torch.nn.Module,
    include_prompt: bool = True,
    normalize: bool = False,
    **options: object,
) -> Path:
    """Save a family's model with modules. `options` go to SentenceTransformer: prompts, default_prompt_name, ..."""
    transformer = Transformer(str(family), model_kwargs={"dtype": torch.float32})
    modules = [transformer, Pooling(transformer.get_embedding_dimension(), pooling, include_prompt=include_prompt)]
    modules += [*extra, Normalize()] if normalize else extra
    SentenceTransformer(modules=modules, device="cpu", **options).save(str(path), create_model_card=False)
    shards = list(family.glob("model-*.safetensors"))
    if shards:
        (path / "model.safetensors").unlink()
        for shard in (*shards, family / "model.safetensors.index.json"):
            shutil.copy(shard, path)
    return path


def dense(inputs: int, outputs: int, activation: torch.nn.Module | None = None, **options: object) -> Dense:
    torch.manual_seed(inputs + outputs)
    layer = Dense(inputs, outputs, activation_function=activation or torch.nn.Tanh(), **options)
    torch.nn.init.normal_(layer.linear.weight, std=1 / math.sqrt(inputs))
    return layer


def layer_norm(dimensions: int) -> LayerNorm:
    torch.manual_seed(dimensions)
    layer = LayerNorm(dimensions)
    torch.nn.init.normal_(layer.norm.weight, mean=1, std=0.3)
    torch.nn.init.normal_(layer.norm.bias, std=0.3)
    return layer


def edit(path: Path, **changes: object) -> None:
    """Change keys of a JSON file; None takes a key away."""
    content = json.loads(path.read_text()) if path.is_file() else {}
    content.update(changes)
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def cut_short(path: Path) -> None:
    """As an interrupted download leaves it."""
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def of_another_shape(path: Path) -> None:
    change_tensors(path, lambda tensors: tensors.update({TENSOR: tensors[TENSOR][:, :-1].contiguous()}))


def without_a_tensor(path: Path) -> None:
    change_tensors(path, lambda tensors: tensors.pop(TENSOR))


def not_a_number(path: Path) -> None:
    change_tensors(path, lambda tensors: tensors[TENSOR].view(-1)[5:6].fill_(math.nan))


def more_tokens_than_rows(path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    tokenizer.add_tokens([f"extra{i}" for i in range(9)])
    tokenizer.save(str(path / "tokenizer.json"))


def code_of_its_own(path: Path) -> None:
    edit(path / "config.json", auto_map={"AutoModel": "modeling_other.OtherModel"})


def only_pickled(path: Path) -> None:
    torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()


def with_module(kind: str) -> Callable[[Path], None]:
    """With a module of this type after the others."""

    def change(path: Path) -> None:
        modules = json.loads((path / "modules.json").read_text())
        number = len(modules)
        package = "sentence_transformers.sentence_transformer.modules"
        entry = {"idx": number, "name": str(number), "path": f"{number}_{kind}", "type": f"{package}.{kind}"}
        (path / "modules.json").write_text(json.dumps([*modules, entry]))
        (path / f"{number}_{kind}").mkdir()
        (path / f"{number}_{kind}" / "config.json").write_text("{}")

    return change


def of_another_kind(path: Path) -> None:
    """A reranker: sentence-transformers would put mean pooling in the place of its modules."""
    edit(path / "config_sentence_transformers.json", model_type="CrossEncoder")


def change_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path / "model.safetensors")
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    change(tensors)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


TENSOR = "encoder.layer.1.attention.output.dense.weight"
# What is wrong with a copy of a BERT, and the words that its refusal has, in lower case.
BROKEN = {
    "cut short": (cut_short, r"cannot be (read|loaded)|cut short|incomplete"),
    "another shape": (of_another_shape, r"do(es)? not fit|shape"),
    "without a tensor": (without_a_tensor, rf"(do(es)? not fit|missing|lacks|has no)(.|\n)*{TENSOR}"),
    "not a number": (not_a_number, r"\bnan\b|not a number|not finite|infinite"),
    "more tokens than rows": (more_tokens_than_rows, r"tokenizer(.|\n)*(tokens|rows|vocab)"),
    "code of its own": (code_of_its_own, r"code of its own|auto_map"),
    "only pickled": (only_pickled, r"safetensors(.|\n)*convert|convert(.|\n)*safetensors"),
    "a reranker": (of_another_kind, r"crossencoder"),
    **{
        kind: (with_module(kind), kind.lower())
        for kind in ("WeightedLayerPooling", "Router", "StaticEmbedding", "CLIPModel")
    },
}
