"""CLIP's vectors of texts and pictures are those of transformers and of open_clip, and so are the pixels."""

import io
import itertools
import json

import numpy as np
import pytest
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import jammi_duck
from jammi_duck.encoder.images.clip_description import describe_clip
from jammi_duck.encoder.images.pictures import Pictures
from jammi_duck.encoder.images.places import PictureLimits
from jammi_duck.encoder.loaded import LoadedEncoders
from jammi_duck.encoder.registry import get_registry
from jammi_duck.errors import EncodingError, InputError, ModelError
from tests import clip_models
from tests.clip_models import data, picture, references, save_clip, to_open_clip
from tests.conftest import put_in_cache
from tests.models import edit
from tools import open_clip

TEXTS = (
    "a red bicycle in the rain", "duck", "Ünïcode, 数字 123 it's", "A  photo,\n of THE cat!", "don't 3.14 $%^ ###",
    "water " * 200, "?",
)  # fmt: skip
COSINE = {"float32": 0.99999, "bfloat16": 0.9998}
MODES = (
    ("RGB", "PNG", {}), ("L", "PNG", {}), ("RGBA", "PNG", {}), ("LA", "PNG", {}), ("1", "PNG", {}), ("P", "PNG", {}),
    ("RGB", "JPEG", {}), ("CMYK", "JPEG", {}), ("P", "GIF", {}), ("RGB", "WEBP", {"lossless": True}),
    ("RGB", "BMP", {}),
    ("P", "PNG", {"transparency": b"\x00\x80" + b"\xff" * 100}), ("P", "PNG", {"transparency": 3}),
)  # fmt: skip
SIZES = ((90, 70), (70, 91), (64, 64), (65, 120), (33, 20), (301, 200), (1, 9))


def pictures():
    shapes = zip(MODES, itertools.cycle(SIZES))
    return [picture(*size, mode, kind, i, **more) for i, ((mode, kind, more), size) in enumerate(shapes)]


def load(path, precision="float32"):
    return LoadedEncoders(4, 2, precision=precision).get(str(path))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Models by their activation, and by the id that they have for the end token."""
    folder = tmp_path_factory.mktemp("clips")
    made = {}

    def of(activation="quick_gelu", end=None):
        if (activation, end) not in made:
            made[activation, end] = save_clip(folder / f"{activation}-{end}", activation=activation, end=end)
        return made[activation, end]

    return of


@pytest.fixture
def clip(clips, tmp_path):
    """A model that may be changed."""
    import shutil

    return shutil.copytree(clips(), tmp_path / "clip")


def check(vectors, expected, precision="float32"):
    assert vectors.shape == expected.shape
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert (vectors * expected).sum(1).min() >= COSINE[precision]
    # They are not all alike, so the cosine tells.
    assert (expected @ expected.T).min() < 0.9


class TestVectors:
    @pytest.mark.parametrize("precision", COSINE)
    @pytest.mark.parametrize("end", [None, 2])
    @pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
    def test_they_are_those_of_transformers(self, clips, activation, end, precision):
        path = clips(activation, end)
        of_texts, of_pictures = references(path)
        encoder = load(path, precision)
        check(encoder.encode(TEXTS, "query"), of_texts(list(TEXTS)), precision)
        check(encoder.encode(list(map(data, pictures()))), of_pictures(pictures()), precision)

    def test_the_files_of_open_clip(self, clips, tmp_path):
        path = to_open_clip(clips(), tmp_path / "open")
        of_texts, of_pictures = references(clips())
        encoder = load(path)
        check(encoder.encode(TEXTS, "query"), of_texts(list(TEXTS)))
        # Where both prepare a picture in the same way.
        alike = [picture(64, 80, seed=1), picture(90, 64, seed=2), picture(64, 64, seed=3), picture(128, 96, seed=4)]
        check(encoder.encode(list(map(data, alike))), of_pictures(alike))

    def test_old_settings_are_there_twice(self, clip):
        edit(clip / "config.json", text_config_dict=None, vision_config_dict={"hidden_act": "gelu"})
        with pytest.raises(ModelError, match="where the model takes 224"):
            load(clip)
        shape = json.loads((clip / "config.json").read_text())["vision_config"]
        edit(clip / "config.json", vision_config_dict={**shape, "hidden_act": "gelu"})
        mine = load(clip).encode([data(each) for each in pictures()])
        check(mine, references(clip)[1](pictures()))

    def test_a_text_beyond_the_limit_is_cut(self, clips):
        encodings = load(clips()).encode_rows(TEXTS, "query", lambda _: None)
        assert encodings.truncated.tolist() == ["water " * 5 in text for text in TEXTS]

    def test_texts_and_pictures_together(self, clips):
        encoder = load(clips())
        texts = ["duck", data(picture(seed=1)), "duck", "data: a chart", data(picture(seed=2)), data(picture(seed=1))]
        together = encoder.encode(texts, "query")
        alone = np.concatenate([encoder.encode([text], "query") for text in texts])
        assert (together * alone).sum(1) == pytest.approx(1, abs=1e-5)
        assert (together[0] == together[2]).all()
        assert (together[1] == encoder.encode([texts[1]])[0]).all()

    def test_a_data_url_is_a_picture(self, clips):
        encoder = load(clips())
        url = data(picture(kind="JPEG")).replace("data:;", "data:image/jpeg;")
        assert (encoder.encode([url], "query") == encoder.encode([data(picture(kind="JPEG"))])).all()

    def test_many_pictures_in_several_passes(self, clips):
        encoder = load(clips())
        texts = [data(picture(40 + i % 7, 60, seed=i)) for i in range(75)]
        told = []
        rows = encoder.stream().encode_rows([*texts, data(b"none"), *texts[:5]], "document", told.append)
        assert (rows.failed.sum(), sum(told)) == (1, 76)
        assert rows.reasons == {75: "it is no picture in a format that is read: JPEG, PNG, GIF, WEBP, BMP"}
        assert (rows.vectors[:75] * encoder.encode(texts)).sum(1) == pytest.approx(1, abs=1e-5)
        assert (rows.vectors[76:] == rows.vectors[:5]).all()
        assert not rows.vectors[75].any()

    def test_who_waits_may_end_it(self, clips):
        def stop(_):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            load(clips()).encode_rows([data(picture())], "document", stop)


class TestPixels:
    """What transformers does with Pillow, without torchvision."""

    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize(("mode", "kind", "more"), MODES)
    def test_they_are_those_of_transformers(self, clips, mode, kind, more, size):
        content = picture(*size, mode, kind, **more)
        ours = Pictures(PictureLimits()).pixels(data(content), describe_clip(clips(), "x").preprocessing)
        prepare = CLIPImageProcessorPil.from_pretrained(clips())
        (theirs,) = prepare(Image.open(io.BytesIO(content)), return_tensors="np")["pixel_values"]
        assert np.abs(ours - theirs).max() < 1e-3

    @pytest.mark.parametrize(
        "settings",
        [
            {"size": 70}, {"size": {"shortest_edge": 64}, "crop_size": 64}, {"resample": 2}, {"image_mean": [0.5] * 3},
            {"size": {"height": 64, "width": 64}, "do_center_crop": False}, {"image_std": [0.5, 0.2, 0.3]},
            {"rescale_factor": 1 / 127},
        ],
    )  # fmt: skip
    def test_settings(self, clip, settings):
        edit(clip / "preprocessor_config.json", **settings)
        content = picture(301, 207)
        ours = Pictures(PictureLimits()).pixels(data(content), describe_clip(clip, "x").preprocessing)
        prepare = CLIPImageProcessorPil.from_pretrained(clip)
        (theirs,) = prepare(Image.open(io.BytesIO(content)), return_tensors="np")["pixel_values"]
        assert np.abs(ours - theirs).max() < 1e-3

    def test_the_settings_of_a_processor(self, clip):
        given = json.loads((clip / "preprocessor_config.json").read_text())
        edit(clip / "preprocessor_config.json", image_mean=[0.5] * 3)
        expected = describe_clip(clip, "x").preprocessing
        (clip / "preprocessor_config.json").rename(clip / "processor_config.json")
        assert describe_clip(clip, "x").preprocessing == expected
        (clip / "processor_config.json").write_text(json.dumps({"image_processor": {**given, "image_mean": [0.5] * 3}}))
        assert describe_clip(clip, "x").preprocessing == expected

    @pytest.mark.parametrize(
        "settings",
        [
            {"do_resize": False}, {"do_normalize": False}, {"size": 60}, {"crop_size": 96}, {"resample": 9},
            {"image_mean": [1, 2]}, {"size": {"height": 64, "width": 32}, "do_center_crop": False},
        ],
    )  # fmt: skip
    def test_what_is_not_supported(self, clip, settings):
        edit(clip / "preprocessor_config.json", **settings)
        with pytest.raises(ModelError, match="prepares pictures with .*, which is not supported"):
            load(clip)


class TestModels:
    def test_by_name(self, clips, hub_cache, tmp_path):
        cached = put_in_cache(hub_cache, "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", to_open_clip(clips(), tmp_path / "o"))
        encoders = LoadedEncoders(4, 2, precision="float32")
        found = encoders.get("open-clip:ViT-B-32")
        assert found is not None
        assert found.identity.name == "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
        assert found.identity.revision == cached.name
        for name in ("open-clip:laion/CLIP-ViT-B-32-laion2B-s34B-b79K", found.identity.name):
            assert encoders.get(name).identity == found.identity
        assert encoders.get(f"open-clip:{tmp_path / 'o'}").identity.weights == found.identity.weights
        assert encoders.takes_images("open-clip:ViT-B-32")
        with pytest.raises(jammi_duck.NoModelError, match="no model 'laion/CLIP-ViT-L-14-laion2B-s32B-b82K'"):
            encoders.get("open-clip:ViT-L-14")

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("ViT-B-33", "has no architecture 'ViT-B-33'; did you mean 'ViT-B-32'"),
            ("ViT-B-32?pretrained=openai", "'ViT-B-32' has no pretrained 'openai'; there are: laion2b_s34b_b79k"),
            ("org/name?pretrained=openai", "pretrained of 'open-clip' is for an architecture"),
            ("ViT-B-32?normalize=false", "vectors always have the length 1"),
        ],
    )
    def test_wrong_names(self, hub_cache, name, message):
        with pytest.raises(InputError, match=message):
            LoadedEncoders(4, 2).get(f"open-clip:{name}")

    def test_a_model_of_texts(self, tiny_model):
        with pytest.raises(ModelError, match="takes no pictures: it is no CLIP; leave 'open-clip:' out"):
            LoadedEncoders(4, 2).get(f"open-clip:{tiny_model}")
        assert not LoadedEncoders(4, 2).takes_images(str(tiny_model))

    def test_as_a_function_of_python(self, clips):
        function = get_registry().get("open-clip").create(name=str(clips()))
        assert (function.ndims(), function.spec) == (32, f"open-clip:{clips()}")
        (of_picture,) = function.compute_source_embeddings([picture()])
        (same,) = function.compute_query_embeddings(picture())
        (of_text,) = function.compute_query_embeddings("a duck")
        expected = load(clips()).encode(["a duck"], "query")[0]
        assert of_picture @ same == pytest.approx(1, abs=1e-3)
        assert of_text @ expected == pytest.approx(1, abs=1e-3)
        with pytest.raises(EncodingError, match="pictures are read from no place that is not listed"):
            function.compute_source_embeddings(["a.png"])

    def test_as_a_function_it_reads_where_the_options_allow_it(self, clips, hub_cache, tmp_path, monkeypatch):
        put_in_cache(hub_cache, "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", to_open_clip(clips(), tmp_path / "o"))
        (tmp_path / "a.png").write_bytes(picture())
        monkeypatch.setenv("JAMMI_IMAGES__ALLOW", json.dumps([str(tmp_path)]))
        function = get_registry().get("open-clip").create()
        (read,), (given,) = (function.compute_source_embeddings([each]) for each in (f"{tmp_path}/a.png", picture()))
        assert (read == given).all()

    def test_in_the_list(self, clips):
        (row,) = (row for row in LoadedEncoders(4, 2).available(str(clips())) if row.name == str(clips()))
        assert (row.family, row.dimensions, row.max_tokens, row.pooling, row.error) == ("clip", 32, 77, "eot", None)

    def test_the_digest_is_of_all_that_changes_vectors(self, clip):
        before = load(clip).identity.weights
        edit(clip / "preprocessor_config.json", image_mean=[0.5] * 3)
        assert load(clip).identity.weights != before

    def test_only_safetensors(self, clip):
        (clip / "model.safetensors").rename(clip / "pytorch_model.bin")
        with pytest.raises(ModelError, match="has no safetensors weights .* convert them: python -c"):
            load(clip)

    def test_open_clip_without_its_safetensors(self, clips, tmp_path):
        path = to_open_clip(clips(), tmp_path / "o")
        (path / "open_clip_model.safetensors").rename(path / "open_clip_pytorch_model.bin")
        with pytest.raises(ModelError, match="has no open_clip_model.safetensors in .*; other weights are never read"):
            load(path)

    @pytest.mark.parametrize(
        ("part", "settings", "message"),
        [
            ("text_config", {"vocab_size": 10**6}, "do not fit its config.json"),
            ("text_config", {"num_attention_heads": 5}, "5 heads for 48 numbers"),
            ("text_config", {"num_hidden_layers": 4}, "there is no 'text_model.encoder.layers.3."),
            ("text_config", {"num_hidden_layers": 0}, "0 layers"),
            ("text_config", {"hidden_size": 2**40}, "at most 2147483648 can be used"),
            ("text_config", {"max_position_embeddings": 10**6}, "do not fit its config.json"),
            ("vision_config", {"image_size": 10**8}, "where the model takes 100000000"),
            ("vision_config", {"patch_size": 8}, "do not fit its config.json"),
            ("vision_config", {"patch_size": 0}, "patches of 0"),
            ("vision_config", {"hidden_act": "tanh"}, "the activation 'tanh', which is not supported"),
            ("vision_config", {"image_size": [64, 32]}, "not square"),
            ("vision_config", {"num_channels": 1}, "not square or not in RGB"),
        ],
    )
    def test_settings_that_do_not_fit(self, clip, part, settings, message):
        given = json.loads((clip / "config.json").read_text())
        edit(clip / "config.json", **{part: {**given[part], **settings}})
        with pytest.raises(ModelError, match=message):
            load(clip)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"custom_text": True}, "sets custom_text = True"),
            ({"multimodal_cfg": {"layers": 1}}, "sets multimodal_cfg"),
            ({"text_cfg": {"hf_model_name": "org/x"}}, "sets hf_model_name = org/x"),
            ({"text_cfg": {"pool_type": "last"}}, "sets pool_type = last"),
            ({"vision_cfg": {"timm_model_name": "x"}}, "sets timm_model_name = x"),
            ({"vision_cfg": {"layers": [3, 4, 6, 3]}}, "sets layers"),
            ({"embed_dim": 64}, "do not fit its config.json"),
        ],
    )
    def test_what_open_clip_has_beyond_that(self, clips, tmp_path, settings, message):
        with pytest.raises(ModelError, match=message):
            load(to_open_clip(clips(), tmp_path / "o", **settings))

    def test_damaged_weights(self, clip):
        from safetensors.torch import load_file, save_file

        tensors = load_file(clip / "model.safetensors")
        tensors["vision_model.post_layernorm.weight"][3] = float("nan")
        save_file(tensors, clip / "model.safetensors")
        with pytest.raises(ModelError, match="are not numbers"):
            load(clip)
        (clip / "model.safetensors").write_bytes((clip / "model.safetensors").read_bytes()[:5000])
        with pytest.raises(ModelError, match="cannot be read"):
            load(clip)

    def test_without_pillow(self, clips, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "PIL", None)
        with pytest.raises(ModelError, match=r"models of pictures need Pillow: pip install 'jammi-duck\[images\]'"):
            LoadedEncoders(5, 2).get(str(clips()))

    def test_installations_share_a_model_and_not_the_places(self, clips, tmp_path):
        (tmp_path / "a.png").write_bytes(picture())
        mine = LoadedEncoders(4, 2, images=PictureLimits([str(tmp_path)])).get(str(clips()))
        mine.encode([str(tmp_path / "a.png")])
        with pytest.raises(EncodingError, match="pictures are read from no place that is not listed"):
            LoadedEncoders(4, 2).get(str(clips())).encode([str(tmp_path / "a.png")])


@pytest.mark.long
class TestOpenClip:
    """Models of the real sizes, with random weights, in the files that open_clip writes."""

    @pytest.mark.parametrize("architecture", ["ViT-B-32-quickgelu", "ViT-B-32", "ViT-B-16"])
    def test_they_are_those_of_open_clip(self, tmp_path, architecture):
        if not open_clip.is_there():
            pytest.skip("no environment with open_clip: python -m tools.open_clip")
        path = tmp_path / "model"
        open_clip.make_model(architecture, path)
        clip_models.real_vocabulary(open_clip.merges()).backend_tokenizer.save(str(path / "tokenizer.json"))
        sizes = itertools.cycle([(640, 480), (480, 641), (301, 200), (224, 224), (225, 420), (80, 81)])
        content = [picture(*next(sizes), mode, kind, i, **more) for i, (mode, kind, more) in enumerate(MODES)]
        theirs = open_clip.vectors(path, TEXTS, content)
        encoder = load(path)
        said, seen = encoder.encode(TEXTS, "query"), encoder.encode(list(map(data, content)))
        assert (said * theirs["texts"]).sum(1).min() >= 0.9999
        assert (seen * theirs["pictures"]).sum(1).min() >= 0.9999
        preprocessing = describe_clip(path, "x").preprocessing
        pixels = np.stack([Pictures(PictureLimits()).pixels(data(each), preprocessing) for each in content])
        assert np.abs(pixels - theirs["pixels"]).max() < 1e-3
        # They are not all alike, so the cosine tells.
        assert (theirs["texts"] @ theirs["texts"].T).min() < 0.99
        assert (theirs["pictures"] @ theirs["pictures"].T).min() < 0.99
