"""Gemma 2: transformers' numbers, scaled embeddings, sizes from shapes."""

import pytest
import torch
from text_encoder_files import GEMMA_WIDTH, text_model
from transformers import Gemma2Config, Gemma2Model

import comfy.ops
from comfy.families.weight_source import StateDictSource
from comfy.text.gemma import GEMMA_2_2B, GemmaTextModel, read_gemma_config


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_states_are_those_of_transformers(dtype):
    tensors = {name: tensor.to(dtype) for name, tensor in text_model("gemma2_2b", vocabulary=300).items()}
    config = read_gemma_config({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    reference = Gemma2Model(Gemma2Config(**config.transformers_arguments(), attn_implementation="eager")).eval()
    reference.load_state_dict({name.removeprefix("model."): tensor.float() for name, tensor in tensors.items()})
    model = GemmaTextModel(config, comfy.ops.pick_operations(dtype, torch.float32), dtype)
    assert model.load_weights(StateDictSource(tensors), dtype, "gemma") == tensors.keys()
    ids = torch.randint(3, 300, (2, 20), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, 9:] = 0
    with torch.inference_mode():
        embeds = model.get_input_embeddings()(ids, out_dtype=torch.float32)
        last, chosen, *_ = model(embeds, [20, 9], mask, intermediate_output=-2, final_layer_norm_intermediate=False)
        expected = reference(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    assert torch.allclose(embeds, tensors["model.embed_tokens.weight"].float()[ids] * GEMMA_WIDTH**0.5)
    own = mask.bool()
    assert torch.allclose(last[own], expected.last_hidden_state[own], atol=2e-4)
    assert torch.allclose(chosen[own], expected.hidden_states[-2][own], atol=2e-4)


def test_published_sizes():
    model = GemmaTextModel(GEMMA_2_2B, comfy.ops.disable_weight_init)
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(2.61e9, rel=0.01)


def test_gemma_3_is_another():
    shapes = {name: tuple(tensor.shape) for name, tensor in text_model("gemma2_2b", vocabulary=300).items()}
    assert read_gemma_config(shapes) is not None
    assert read_gemma_config({**shapes, "model.layers.0.self_attn.q_norm.weight": (256,)}) is None
    del shapes["model.layers.0.post_feedforward_layernorm.weight"]
    assert read_gemma_config(shapes) is None
