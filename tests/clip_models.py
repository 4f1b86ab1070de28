"""Small CLIP models with random weights, in the directories that transformers and open_clip write, and pictures.

The weights are large enough that attention, positions and activations all show in the vectors.
"""

import base64
import gzip
import io
import json
import math

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from tests.texts import corpus

START, END = "<|startoftext|>", "<|endoftext|>"
VOCABULARY = 600
SIZE, PATCH = 64, 16
TEXT = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
VISION = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}


def tokenizer() -> CLIPTokenizer:
    """As CLIP's, with a small vocabulary; its special tokens have the highest ids."""
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    trained.train_from_iterator(corpus(), trainer)
    model = json.loads(trained.to_str())["model"]
    words = {word: i for i, word in enumerate(sorted(model["vocab"], key=model["vocab"].get))}
    return CLIPTokenizer(
        vocab={**words, START: len(words), END: len(words) + 1}, merges=[tuple(pair) for pair in model["merges"]]
    )


def save_clip(path, *, activation="quick_gelu", end=None, size=SIZE, text=TEXT, vision=VISION, dimensions=32, seed=5):
    """A CLIPModel of transformers; `end` is the id that its config.json has for the end token."""
    tokens = tokenizer()
    ends = {"eos_token_id": tokens.eos_token_id if end is None else end, "bos_token_id": tokens.bos_token_id}
    shape = CLIPConfig(
        text_config={"vocab_size": len(tokens), "hidden_act": activation, **ends, **text},
        vision_config={"image_size": size, "patch_size": PATCH, "hidden_act": activation, **vision},
        projection_dim=dimensions,
    )
    torch.manual_seed(seed)
    model = CLIPModel(shape).eval()
    shake(model)
    model.save_pretrained(path)
    tokens.save_pretrained(path)
    CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size}).save_pretrained(path)
    return path


def shake(model):
    """Give a model weights that show in its vectors."""
    with torch.no_grad():
        for name, each in model.named_parameters():
            if each.ndim < 2:
                each.copy_((1.0 if "norm" in name and "weight" in name else 0.0) + 0.2 * torch.randn_like(each))
            else:
                each.copy_(torch.randn_like(each) / math.sqrt(each[0].numel()) * (3 if "embedding" in name else 1))


def references(path):
    """The vectors of texts and of pictures by transformers: two functions."""
    model, tokens = CLIPModel.from_pretrained(path).eval(), CLIPTokenizer.from_pretrained(path)
    prepare = CLIPImageProcessorPil.from_pretrained(path)

    def of_texts(texts):
        given = tokens(texts, padding=True, truncation=True, max_length=77, return_tensors="pt")
        with torch.inference_mode():
            return unit(model.get_text_features(**given).pooler_output.numpy())

    def of_pictures(pictures):
        opened = [Image.open(io.BytesIO(each)) for each in pictures]
        with torch.inference_mode():
            return unit(model.get_image_features(**prepare(opened, return_tensors="pt")).pooler_output.numpy())

    return of_texts, of_pictures


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def to_open_clip(source, path, **settings):
    """The same weights as open_clip names them; returns the directory."""
    from safetensors.torch import load_file

    config = json.loads((source / "config.json").read_text())
    text, vision = config["text_config"], config["vision_config"]
    given = load_file(source / "model.safetensors")
    tensors = {"logit_scale": given["logit_scale"]}
    for theirs, ours in (
        ("text_model.embeddings.token_embedding.weight", "token_embedding.weight"),
        ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
        ("vision_model.embeddings.class_embedding", "visual.class_embedding"),
        ("vision_model.embeddings.patch_embedding.weight", "visual.conv1.weight"),
        ("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding"),
    ):
        tensors[ours] = given[theirs]
    tensors["text_projection"] = given["text_projection.weight"].t().contiguous()
    tensors["visual.proj"] = given["visual_projection.weight"].t().contiguous()
    norms = {"text_model.final_layer_norm": "ln_final", "vision_model.pre_layrnorm": "visual.ln_pre"}
    norms["vision_model.post_layernorm"] = "visual.ln_post"
    parts = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "self_attn.out_proj": "attn.out_proj"}
    parts |= {"mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    for tower, ours, shape in (("text_model", "", text), ("vision_model", "visual.", vision)):
        for i in range(shape["num_hidden_layers"]):
            before, after = f"{tower}.encoder.layers.{i}.", f"{ours}transformer.resblocks.{i}."
            norms |= {before + theirs: after + mine for theirs, mine in parts.items()}
            for kind in ("weight", "bias"):
                joined = [given[f"{before}self_attn.{part}_proj.{kind}"] for part in "qkv"]
                tensors[f"{after}attn.in_proj_{kind}"] = torch.cat(joined)
    for theirs, mine in norms.items():
        tensors |= {f"{mine}.{kind}": given[f"{theirs}.{kind}"] for kind in ("weight", "bias")}
    path.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path / "open_clip_model.safetensors")
    model = {
        "embed_dim": config["projection_dim"],
        "quick_gelu": text["hidden_act"] == "quick_gelu",
        "vision_cfg": {
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "width": vision["hidden_size"],
            "layers": vision["num_hidden_layers"],
            "head_width": vision["hidden_size"] // vision["num_attention_heads"],
            "mlp_ratio": vision["intermediate_size"] / vision["hidden_size"],
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": text["vocab_size"],
            "width": text["hidden_size"],
            "heads": text["num_attention_heads"],
            "layers": text["num_hidden_layers"],
            "mlp_ratio": text["intermediate_size"] / text["hidden_size"],
        },
    }
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {**model, **settings}, "preprocess_cfg": {}}))
    (path / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())
    return path


def picture(width=90, height=70, mode="RGB", kind="PNG", seed=0, **options):
    """The bytes of a picture: smooth noise with an edge in it."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (7, 9, 4), np.uint8)
    image = Image.fromarray(coarse, "RGBA").resize((width, height), Image.Resampling.BICUBIC)
    image.paste((250, 10, 10, 255), (width // 3, height // 4, width // 2, height))
    image = image if mode == "RGBA" else image.convert(mode)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def data(content: bytes) -> str:
    return "data:;base64," + base64.b64encode(content).decode()


def real_vocabulary(file):
    """The tokenizer of OpenAI's CLIP, from the list of merges that open_clip brings along."""
    merges = gzip.decompress(file.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    pairs = [tuple(merge.split()) for merge in merges]
    # Visible bytes come first, and then the others, which have letters from 256 on.
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, pairs), START, END]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=pairs)
