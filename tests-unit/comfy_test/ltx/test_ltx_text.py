"""LTX 2's text encoder: what checkpoints hold for the states of Gemma, and what comes of these."""

import math

import pytest
import torch
from ltx_files import SOUND_WIDTH, TEXT, WIDTH, ltx_tensors, projection_tensors
from text_encoder_files import text_model

import comfy.text_encoders.lt
from comfy.families.weight_source import StateDictSource
from comfy.text.combinations import find_combination
from comfy.text.kinds import recognise
from comfy.text.ltx_projection_config import PROJECTION, ProjectionConfig, projection_source, read_projection_config
from comfy.text.te_models import TEModel
from comfy.text_encoders.ltxav import DualLinearProjection, LTXAVTEModel

STATES, LAYERS = 64, 49


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


class Reads:
    """Stands for Gemma: gives *states*, of whose tokens the first ones only fill up."""

    def __init__(self, states, filling):
        self.answer = (states, None, {"attention_mask": torch.tensor([[0] * filling + [1] * (states.shape[2] - filling)])})

    def encode_token_weights(self, pairs):
        return self.answer

    def set_clip_options(self, options):
        pass

    reset_clip_options = set_clip_options


def encoder(kind, states, filling=2):
    """A text encoder of the *kind* with that in the place of Gemma."""
    source = StateDictSource(projection_tensors(kind))
    found = recognise(source)
    gemma = recognise(StateDictSource(text_model("gemma3_12b", vocabulary=300)))
    options = {f"{PROJECTION}_model_config": found.config, "gemma3_12b_model_config": gemma.config}
    model = LTXAVTEModel(model_options=options)
    model.load_weights({"gemma3_12b": gemma.source, PROJECTION: found.source})
    del model.gemma3_12b
    object.__setattr__(model, "gemma3_12b", Reads(states, filling))
    return model


def test_checkpoints_are_told_by_their_projection():
    checkpoint = {f"model.diffusion_model.{name}": value for name, value in ltx_tensors("2").items()} | projection_tensors("2")
    found = recognise(StateDictSource(checkpoint))
    assert found.kind.model == TEModel.LTX_PROJECTION and found.config == ProjectionConfig(LAYERS * STATES, TEXT, None, False, False, False)
    assert list(found.source.shapes()) == [f"{PROJECTION}.weight"]
    both = recognise(StateDictSource(projection_tensors("2.3")))
    assert both.config == ProjectionConfig(LAYERS * STATES, WIDTH, SOUND_WIDTH, True, True, False) and len(both.source.shapes()) == 4
    assert read_projection_config({"other": (1,)}) is None
    target = find_combination([TEModel.GEMMA_3_12B, TEModel.LTX_PROJECTION], "ltxv").make(["gemma3_12b", PROJECTION])
    assert target.clip is LTXAVTEModel and comfy.text_encoders.lt.LTXAVTEModel is LTXAVTEModel


def test_the_first_ones_connectors_belong_to_it():
    block = "model.diffusion_model.{}_embeddings_connector.transformer_1d_blocks.{}.attn1.to_q.bias"
    names = [block.format(name, number) for name in ("audio", "video") for number in range(2)]
    tensors = {name: torch.empty(3840, device="meta") for name in names} | {f"{PROJECTION}.weight": torch.empty(3840, 8, device="meta")}
    source = projection_source(StateDictSource(tensors))
    assert read_projection_config({name: tuple(value.shape) for name, value in tensors.items()}).connected
    assert set(source.shapes()) == {name.removeprefix("model.diffusion_model.") for name in names} | {f"{PROJECTION}.weight"}


def test_states_are_brought_to_a_range_and_projected():
    states = torch.randn(1, LAYERS, 6, STATES)
    model = encoder("2", states)
    text, pooled, extra = model.encode_token_weights({"gemma3_12b": []})
    assert text.shape == (1, 4, TEXT) and pooled is None and extra == {"unprocessed_ltxav_embeds": True}
    kept = states[:, :, 2:]
    mean, lowest, highest = (kept.mean(dim=(2, 3), keepdim=True), kept.amin(dim=(2, 3), keepdim=True), kept.amax(dim=(2, 3), keepdim=True))
    ranged = (8 * (kept - mean) / (highest - lowest + 1e-6)).permute(0, 2, 3, 1).flatten(2)
    assert torch.allclose(text, ranged @ model.text_embedding_projection.weight.T, atol=1e-5)


def test_states_are_normalised_for_video_and_sound_apart():
    states = torch.randn(1, LAYERS, 5, STATES)
    model = encoder("2.3", states, 0)
    text, _, _ = model.encode_token_weights({"gemma3_12b": []})
    assert isinstance(model.text_embedding_projection, DualLinearProjection) and text.shape == (1, 5, WIDTH + SOUND_WIDTH)
    even = (states / states.square().mean(dim=3, keepdim=True).add(1e-6).sqrt()).permute(0, 2, 3, 1).flatten(2)
    part = model.text_embedding_projection.audio_aggregate_embed
    expected = even * math.sqrt(SOUND_WIDTH / STATES) @ part.weight.T + part.bias
    assert torch.allclose(text[..., WIDTH:], expected, atol=1e-4)


def test_memory_grows_with_the_words_beyond_the_filling():
    model = encoder("2", torch.randn(1, LAYERS, 6, STATES))
    few, many = ({"gemma3_12b": [[(0, 1.0)] * filling + [(5, 1.0)] * words]} for filling, words in ((1000, 24), (24, 1000)))
    assert model.memory_estimation_function(few, torch.device("cpu")) == 642 * 6 * 2**20
    assert model.memory_estimation_function(many, torch.device("cpu")) == 1000 * 6 * 2**20
