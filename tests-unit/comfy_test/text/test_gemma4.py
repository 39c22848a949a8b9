"""Gemma 4: transformers' numbers, which file is which, pictures and sounds among the tokens, what it writes, LTX 2.5's text encoder."""

import gemma4_files as files
import pytest
import torch
from safetensors.torch import save_file
from transformers.models.gemma4.configuration_gemma4 import Gemma4TextConfig
from transformers.models.gemma4.modeling_gemma4 import Gemma4TextModel

import comfy.ops
import comfy.sd
from comfy.families.weight_source import StateDictSource
from comfy.text.gemma4 import media, senses
from comfy.text.gemma4.network import Gemma4TextModel as OwnModel
from comfy.text.gemma4.sizes import GEMMA_4_E4B, UNSAID, read_gemma4_config
from comfy.text.kinds import recognise, recognise_parts
from comfy.text.te_models import TEModel
from comfy.text_encoders import gemma4, lt
from comfy.text_encoders.ltxav import LTXAVGemma4TEModel

MODELS = {"e2b": TEModel.GEMMA_4_E2B, "e4b": TEModel.GEMMA_4_E4B, "12b": TEModel.GEMMA_4_12B, "31b": TEModel.GEMMA_4_31B}
LIKELIEST = {"do_sample": False, "max_length": 4}


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


def projection():
    name = "text_embedding_projection.{}_aggregate_embed.weight"
    return {name.format(sense): torch.randn(width, 49 * files.WIDTH) for sense, width in (("video", 24), ("audio", 8))}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder, loaded = tmp_path_factory.mktemp("gemma4"), {}
    for name, tensors in (("e2b", files.gemma4_tensors("e2b")), ("ltx", {**files.gemma4_tensors("12b"), **projection()})):
        save_file(files.with_tokenizer(tensors), str(folder / f"{name}.safetensors"))
        kind = comfy.sd.CLIPType.LTXV if name == "ltx" else comfy.sd.CLIPType.STABLE_DIFFUSION
        loaded[name] = comfy.sd.load_clip([str(folder / f"{name}.safetensors")], clip_type=kind)
    return loaded


@pytest.mark.parametrize("size", MODELS)
def test_files_are_told_by_depth(size):
    tensors = files.gemma4_tensors(size)
    found = recognise(StateDictSource(tensors))
    assert found.kind.model is MODELS[size] and found.kind.part == "gemma4" and found.config.size == size
    assert (found.config.glance is not None) is (size == "12b") and (found.config.ears is not None) is (size in files.SHARED)
    idle = set(tensors) - set(found.source.shapes())
    assert len(idle) == 3 * files.SHARED.get(size, 0) and all(".self_attn." in name for name in idle)
    assert read_gemma4_config({name: value.shape for name, value in tensors.items() if "layer_scalar" not in name}) is None


def test_a_file_without_senses_says_so():
    found = recognise(StateDictSource(files.gemma4_tensors("31b", senses=False)))
    model = OwnModel(found.config, comfy.ops.disable_weight_init)
    with pytest.raises(ValueError, match="use a Gemma 4 file with vision_model"):
        model.preprocess_embed({"type": "image", "data": torch.rand(1, 48, 48, 3)}, torch.device("cpu"))


def test_states_are_those_of_transformers_beyond_the_window():
    found = recognise(StateDictSource(files.gemma4_tensors("e4b", senses=False)))
    config = type(found.config)(**{name: getattr(found.config, name) for name in found.config.__slots__} | {"window": 6})
    model = OwnModel(config, comfy.ops.disable_weight_init)
    model.load_weights(found.source, torch.float32, "gemma")
    reference = Gemma4TextModel(Gemma4TextConfig(**config.transformers_arguments(), attn_implementation="eager")).eval()
    tensors = found.source.take(found.source.shapes(), None)
    reference.load_state_dict({name.removeprefix("model."): tensor for name, tensor in tensors.items()})
    ids = torch.randint(3, 300, (1, 20), generator=torch.Generator().manual_seed(1))
    memory = model.new_memory()
    memory.ids = ids
    embeds = model.get_input_embeddings()(ids, out_dtype=torch.float32)
    last, chosen, *_ = model(embeds, [20], None, "all", False, memory=memory)
    expected = reference(input_ids=ids, output_hidden_states=True)
    assert chosen.shape == (1, 43, 20, files.WIDTH)
    assert torch.allclose(last, expected.last_hidden_state, atol=2e-4)
    assert torch.allclose(chosen[:, 30], expected.hidden_states[30], atol=2e-4)


def test_published_sizes():
    model = OwnModel(GEMMA_4_E4B, comfy.ops.disable_weight_init)
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(7.46e9, rel=0.01)


def test_what_ends_a_picture_is_never_said():
    found = recognise(StateDictSource(files.gemma4_tensors("12b", vocabulary=UNSAID[0] + 2, senses=False)))
    model = OwnModel(found.config, comfy.ops.disable_weight_init)
    model.load_weights(found.source, torch.float32, "gemma")
    scores = model.logits(torch.randn(1, 1, files.WIDTH))
    assert bool((scores[..., list(UNSAID)] < -1e30).all()) and scores.abs()[..., :100].max() <= 30


@pytest.mark.parametrize(("height", "width", "size"), [(200, 330, (624, 1008)), (1, 4000, (48, 280 * 48)), (4000, 1, (280 * 48, 48))])
def test_pictures_keep_their_shape_within_the_tokens(height, width, size):
    assert media.fitting_size(height, width, media.PICTURE_TOKENS) == size


def test_cells_are_numbered_from_the_left_above():
    picture = torch.arange(4 * 6).reshape(1, 4, 6, 1).expand(1, 4, 6, 3)
    values, places = senses.picture_cells(picture, 2)
    assert values.shape == (1, 6, 12) and values[0, 4, ::3].tolist() == [14, 15, 20, 21] and places[0, 4].tolist() == [1, 1]


def test_a_sound_too_short_to_hear_is_refused():
    with pytest.raises(ValueError, match="too short"):
        media.spectrum(torch.zeros(20))


def test_raw_sound_is_half_a_minute_at_most():
    assert media.raw_moments(torch.ones(1000))["data"].shape == (1, 2, 640)
    assert media.raw_moments(torch.ones(640 * 800))["data"].shape == (1, 750, 640)


def test_pictures_and_sounds_take_the_places_of_their_marks(clips):
    sound = {"waveform": torch.rand(1, 2, 8000) - 0.5, "sample_rate": 8000}
    ((chunk,),) = clips["e2b"].tokenize("rain", image=torch.rand(2, 48, 48, 3), audio=sound, skip_template=False, min_length=1).values()
    kinds = [token["type"] for token, _ in chunk if isinstance(token, dict)]
    assert kinds == ["image", "image", "audio"] and chunk[0] == (files.START, 1.0)
    states = clips["e2b"].encode_from_tokens({"gemma4": [chunk]})
    assert states.shape[1] == 36 and states.shape[2] > len(chunk) + 2 * 200
    ((frames,),) = clips["e2b"].tokenize("rain", video=torch.rand(49, 48, 96, 3), skip_template=False).values()
    assert sum(isinstance(token, dict) for token, _ in frames) == 3
    words = clips["e2b"].tokenizer.gemma4
    assert words.tokenize_with_weights("<|turn>x", skip_template=False) == words.tokenize_with_weights("<|turn>x")


def test_it_writes_and_thoughts_are_told_apart(clips):
    tokens = clips["e2b"].tokenize("rain", skip_template=False, thinking=True, min_length=1)
    assert clips["e2b"].generate(tokens, **LIKELIEST) == clips["e2b"].generate(tokens, **LIKELIEST)
    words = clips["e2b"].tokenizer
    said = words.gemma4.tokenizer("<|channel>thought\nhm<channel|>yes<turn|>")["input_ids"]
    assert words.decode([*said, 1]) == "<think>\nhm</think>yes"


def test_ltx_has_its_projection_in_the_file(clips):
    parts = recognise_parts(StateDictSource({**files.gemma4_tensors("12b"), **projection()}))
    assert [part.kind.model for part in parts] == [TEModel.GEMMA_4_12B, TEModel.LTX_PROJECTION]
    clip = clips["ltx"]
    assert type(clip.cond_stage_model) is LTXAVGemma4TEModel
    tokens = clip.tokenize("rain")
    assert len(tokens["gemma4"][0]) == 1024
    found = clip.encode_from_tokens(tokens, return_dict=True)
    assert found["cond"].shape == (1, 5, 32) and found["unprocessed_ltxav_embeds"]
    assert len(clip.generate(clip.tokenize("rain", min_length=1), **LIKELIEST)) <= 4
    assert clip.tokenizer.state_dict().keys() == {"tokenizer_json"}


def test_packs_find_the_names_where_comfyui_has_them():
    assert lt.ltxav_gemma4_tokenizer is gemma4.ltxav_gemma4_tokenizer and gemma4.gemma4_te() is gemma4.Gemma4TEModel
