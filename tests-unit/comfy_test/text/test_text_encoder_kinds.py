"""Which text model a file holds, what several make together for each loader type, and what they are told when they make nothing."""

import logging

import pytest
import safetensors.torch
import torch
from text_encoder_files import CLIP_WIDTH, SIZES, T5_WIDTH, sentence_piece_model, text_model, write_tokenizer

import comfy.model_management
import comfy.sd
import comfy_extras.core_loaders as loaders
from comfy.cli_args import args
from comfy.families.model_errors import MissingTokenizerError, UnknownModelError
from comfy.families.weight_source import StateDictSource
from comfy.loading.checkpoint import checkpoint_clip
from comfy.loading.lora_keys import model_lora_keys_clip
from comfy.loading.text_encoder import kept_encoder_bytes, load_text_encoder_sources
from comfy.supported_models_base import BASE
from comfy.text.combinations import COMBINATIONS, find_combination, makings, types_for
from comfy.text.kinds import KINDS, prefixes, read_part, recognise
from comfy.text.te_models import TEModel

MODELS = {
    "clip_l": TEModel.CLIP_L,
    "clip_g": TEModel.CLIP_G,
    "t5xxl": TEModel.T5_XXL,
    "umt5xxl": TEModel.UMT5_XXL,
    "t5xxl_old": TEModel.T5_XXL_OLD,
    "t5base": TEModel.T5_BASE,
    "gemma2_2b": TEModel.GEMMA_2_2B,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A file of each kind."""
    folder = tmp_path_factory.mktemp("encoders")
    for kind in SIZES:
        safetensors.torch.save_file(text_model(kind, vocabulary=4096), folder / f"{kind}.safetensors")
    return folder


@pytest.fixture(autouse=True)
def tokenizers(monkeypatch, tmp_path):
    write_tokenizer(tmp_path / "t5")
    write_tokenizer(tmp_path / "umt5")
    write_tokenizer(tmp_path / "gemma2")
    monkeypatch.setattr(args, "tokenizer_directory", [str(tmp_path)])
    monkeypatch.setattr(args, "offline", True)


def loaded(files, kind, *names, **options):
    return comfy.sd.load_clip([str(files / f"{name}.safetensors") for name in names], clip_type=comfy.sd.CLIPType[kind], **options)


def encoded(clip, text):
    with torch.inference_mode():
        ((states, extras),) = clip.encode_from_tokens_scheduled(clip.tokenize(text))
    return states, extras


@pytest.mark.parametrize("kind", SIZES)
def test_a_kind_is_told_by_names_and_shapes(kind):
    tensors = text_model(kind, vocabulary=4096)
    assert comfy.sd.detect_te_model(tensors) is MODELS[kind]
    part = next(one.part for one in KINDS if one.model is MODELS[kind])
    for prefix in prefixes(part):
        found = recognise(StateDictSource({prefix + name: tensor for name, tensor in tensors.items()}))
        assert found.kind.model is MODELS[kind] and found.source.shapes().keys() == tensors.keys() and found.prefix == prefix
    assert read_part(part, StateDictSource(tensors)).kind.model is MODELS[kind]


def test_other_tensors_are_no_kind():
    assert recognise(StateDictSource({"a.weight": torch.ones(2)})) is None
    assert comfy.sd.detect_te_model({"model.layers.0.self_attn.q_proj.weight": torch.ones(2, 2)}) is None
    with pytest.raises(UnknownModelError, match="t5xxl in some.safetensors is not T5"):
        read_part("t5xxl", StateDictSource({"a.weight": torch.ones(2)}, "some.safetensors"))


def test_every_type_that_is_offered_loads_something_and_no_other_is():
    single = loaders.CLIPLoader.INPUT_TYPES()["required"]["type"][0]
    dual = loaders.DualCLIPLoader.INPUT_TYPES()["required"]["type"][0]
    assert set(single) <= types_for(1) and set(dual) <= types_for(2) and {"sd3", "wan", "flux"} <= {*single, *dual}
    for count, names in ((1, single), (2, dual)):
        for name in names:
            assert name == "sdxl" or name.upper() in comfy.sd.CLIPType.__members__
            for models in makings(name, count):
                parts = {one.part for one in KINDS if one.model in models}
                assert find_combination(models, name).make(parts) is not None
    assert "newbie" not in dual and "lens" not in single
    known = {kind.model for kind in KINDS}
    assert all(one.models <= known for one in COMBINATIONS)


def test_a_type_that_has_no_combination_of_its_own_gets_the_usual_one():
    assert find_combination([TEModel.T5_XXL], "stable_diffusion").target.endswith("mochi_target")
    assert find_combination([TEModel.CLIP_L, TEModel.CLIP_G], "flux").target.endswith("sdxl_target")
    assert find_combination([TEModel.CLIP_L, TEModel.CLIP_L], "sdxl") is None


@pytest.mark.parametrize(("names", "kind"), [(("clip_g", "umt5xxl"), "FLUX"), (("clip_l", "clip_l"), "STABLE_DIFFUSION")])
def test_wrong_pairs_name_both_files_and_what_would_do(files, names, kind):
    with pytest.raises(UnknownModelError) as raised:
        loaded(files, kind, *names)
    text = str(raised.value)
    assert all(f"{name}.safetensors" in text for name in names) and f"type {kind.lower()}" in text
    assert ("CLIP-L + T5 v1.1" if kind == "FLUX" else "CLIP-G + CLIP-L") in text


def test_no_text_model_names_the_file(tmp_path):
    safetensors.torch.save_file({"a.weight": torch.ones(2)}, tmp_path / "odd.safetensors")
    with pytest.raises(UnknownModelError, match=r"odd\.safetensors is not a supported text model.*T5 v1\.1.*UMT5"):
        comfy.sd.load_clip([str(tmp_path / "odd.safetensors")])


def test_flux_takes_t5s_states_and_clips_pooled_output(files):
    clip, alone = loaded(files, "FLUX", "t5xxl", "clip_l"), loaded(files, "COGVIDEOX", "t5xxl")
    tokens = clip.tokenize("a (red:1.3) apple")
    assert tokens.keys() == {"l", "t5xxl"} and len(tokens["t5xxl"][0]) == 256 and len(tokens["l"][0]) == 77
    assert clip.tokenize("a", return_word_ids=True)["t5xxl"][0][0][2] == 1
    states, extras = encoded(clip, "a (red:1.3) apple")
    assert states.shape == (1, 256, T5_WIDTH) and extras["pooled_output"].shape == (1, CLIP_WIDTH) and "attention_mask" not in extras
    with torch.inference_mode():
        assert torch.equal(states, alone.encode_from_tokens({"t5xxl": tokens["t5xxl"]}))
    plain, _ = encoded(clip, "a red apple")
    assert not torch.equal(states, plain)
    names = set(clip.patcher.model_state_dict())
    assert {"clip_l.transformer.text_model.final_layer_norm.weight", "t5xxl.transformer.shared.weight"} <= names


def test_options_of_the_tokenizer_reach_it(files):
    clip = loaded(files, "FLUX", "t5xxl", "clip_l").clone()
    clip.set_tokenizer_option("t5xxl_min_length", 300)
    clip.set_tokenizer_option("t5xxl_min_padding", 1)
    assert len(clip.tokenize("a")["t5xxl"][0]) == 300


@pytest.mark.parametrize(
    ("kind", "names", "shape", "extra"),
    [
        ("SD3", ("clip_l",), (1, 77, 4096), False),
        ("SD3", ("clip_l", "clip_g"), (1, 77, 4096), False),
        ("SD3", ("clip_l", "clip_g", "t5xxl"), (1, 154, T5_WIDTH), False),
        ("LTXV", ("t5xxl",), (1, 128, T5_WIDTH), True),
        ("MOCHI", ("t5xxl",), (1, 256, T5_WIDTH), True),
        ("WAN", ("umt5xxl",), (1, 512, T5_WIDTH), False),
        ("COSMOS", ("t5xxl_old",), (1, 512, T5_WIDTH), True),
        ("STABLE_AUDIO", ("t5base",), (1, 128, T5_WIDTH), False),
        ("HIDREAM", ("t5xxl", "clip_l"), (1, 128, T5_WIDTH), False),
        ("LUMINA2", ("gemma2_2b",), None, True),
    ],
)
def test_shapes_of_conditioning(files, kind, names, shape, extra):
    states, extras = encoded(loaded(files, kind, *names), "a red apple")
    assert (shape is None or states.shape == shape) and ("attention_mask" in extras) == extra
    if kind in ("WAN", "COSMOS", "STABLE_AUDIO"):
        assert not states[:, -1].any()
    if kind in ("SD3", "HIDREAM"):
        assert extras["pooled_output"].shape == (
            1,
            (CLIP_WIDTH if "clip_l" in names else 768) + (CLIP_WIDTH if "clip_g" in names else 1280),
        )
    if kind == "HIDREAM":
        assert not extras["conditioning_llama3"].any()


def test_without_t5_no_tokenizer_is_looked_for(files, monkeypatch):
    monkeypatch.setattr(args, "tokenizer_directory", [])
    assert loaded(files, "SD3", "clip_l", "clip_g").tokenize("a")["t5xxl"] == []
    with pytest.raises(MissingTokenizerError, match=r"t5xxl\.safetensors"):
        loaded(files, "SD3", "t5xxl")


def test_a_file_brings_its_tokenizer(tmp_path, monkeypatch):
    pytest.importorskip("sentencepiece")
    monkeypatch.setattr(args, "tokenizer_directory", [])
    model = torch.frombuffer(bytearray(sentence_piece_model()), dtype=torch.uint8)
    safetensors.torch.save_file({**text_model("umt5xxl", vocabulary=512), "spiece_model": model}, tmp_path / "umt5xxl.safetensors")
    clip = loaded(tmp_path, "WAN", "umt5xxl")
    assert torch.equal(clip.get_sd()["spiece_model"], model) and len(clip.tokenize("a")["umt5xxl"][0]) == 512


def test_each_text_model_keeps_its_own_precision(files):
    sources = [
        StateDictSource({name: tensor.to(dtype) for name, tensor in text_model(kind, vocabulary=4096).items()}, kind)
        for kind, dtype in (("clip_l", torch.float32), ("t5xxl", torch.float8_e4m3fn))
    ]
    clip = load_text_encoder_sources(sources, clip_type=comfy.sd.CLIPType.FLUX)
    assert clip.cond_stage_model.clip_l.dtype == torch.float32 and clip.cond_stage_model.t5xxl.dtype == torch.float8_e4m3fn
    assert encoded(clip, "a")[0].isfinite().all()


def test_state_dicts_make_the_same(files):
    from_files = loaded(files, "FLUX", "clip_l", "t5xxl")
    states = [safetensors.torch.load_file(files / f"{name}.safetensors") for name in ("clip_l", "t5xxl")]
    made = comfy.sd.load_text_encoder_state_dicts(states, clip_type=comfy.sd.CLIPType.FLUX)
    assert torch.equal(encoded(made, "a red apple")[0], encoded(from_files, "a red apple")[0])
    other = text_model("t5xxl", seed=5, vocabulary=4096)
    assert made.load_sd(other) == ([], []) and not torch.equal(encoded(made, "a")[0], encoded(from_files, "a")[0])
    with pytest.raises(UnknownModelError, match="UMT5.*made of clip_l, t5xxl"):
        made.load_sd(text_model("umt5xxl", vocabulary=4096))


def test_estimates_are_what_is_kept(files, caplog):
    caplog.set_level(logging.INFO)
    source = StateDictSource(text_model("t5xxl", vocabulary=4096))
    clip = loaded(files, "MOCHI", "t5xxl")
    assert kept_encoder_bytes(source, {}) == sum(one.nbytes for one in clip.cond_stage_model.parameters())
    assert "tokenizer" in caplog.text and comfy.model_management.text_encoder_device() is not None


class Family(BASE):
    """A family whose checkpoints hold any of its text models."""

    text_encoder_type = "sd3"

    def text_encoder_parts(self):
        return {name: (f"text_encoders.{name}.transformer.",) for name in ("clip_l", "clip_g", "t5xxl")}


@pytest.mark.parametrize("names", [("clip_l", "clip_g", "t5xxl"), ("clip_g", "t5xxl"), ()])
def test_checkpoints_may_hold_some_text_models(names, files, caplog):
    tensors = {}
    for name in names:
        tensors |= {f"text_encoders.{name}.transformer.{key}": tensor for key, tensor in text_model(name, vocabulary=4096).items()}
    clip = checkpoint_clip(Family({}), StateDictSource(tensors, "all.safetensors"), tensors, None, {})
    if not names:
        assert clip is None and "all.safetensors has no tensors of a text model" in caplog.text
        return
    alone = loaded(files, "SD3", *names)
    assert set(clip.cond_stage_model.parts()) == set(names) and torch.equal(encoded(clip, "a cat")[0], encoded(alone, "a cat")[0])


@pytest.mark.parametrize(
    ("names", "kind", "prefixes"), [(("clip_l", "t5xxl"), "FLUX", (2, 3)), (("clip_l", "clip_g", "t5xxl"), "SD3", (3,))]
)
def test_lora_files_may_name_t5(files, names, kind, prefixes):
    keys = model_lora_keys_clip(loaded(files, kind, *names).cond_stage_model)
    layer = "encoder_block_1_layer_0_SelfAttention_q"
    key = "t5xxl.transformer.encoder.block.1.layer.0.SelfAttention.q.weight"
    assert {name for name, value in keys.items() if value == key and layer in name} == {f"lora_te{number}_{layer}" for number in prefixes}
    assert keys[f"text_encoders.{key.removesuffix('.weight')}"] == key
