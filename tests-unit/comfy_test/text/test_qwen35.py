"""Qwen 3.5: transformers' numbers, which file is which, its conversation, and writing from what it remembers."""

import pytest
import torch
from transformer_files import qwen35_tensors
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5TextModel

import comfy.ops
from comfy.families.weight_source import StateDictSource
from comfy.text.combinations import find_combination
from comfy.text.generation import Sampling, generate
from comfy.text.kinds import recognise
from comfy.text.qwen.hybrid import HybridTextModel, read_hybrid_config
from comfy.text.te_models import TEModel
from comfy.text_encoders import qwen35


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def own_model(tensors, dtype=torch.float32):
    model = HybridTextModel(recognise(StateDictSource(tensors)).config, comfy.ops.pick_operations(dtype, torch.float32), dtype)
    assert model.load_weights(StateDictSource(tensors), dtype, "qwen3.5") == tensors.keys()
    return model


def words(model, count):
    ids = torch.randint(3, 300, (1, count), generator=torch.Generator().manual_seed(1))
    return ids, model.get_input_embeddings()(ids, out_dtype=torch.float32)


def test_states_are_those_of_transformers():
    tensors = qwen35_tensors(eyes=False, vocabulary=300)
    model = own_model(tensors)
    reference = Qwen3_5TextModel(Qwen3_5TextConfig(**model.config.transformers_arguments(), attn_implementation="eager")).eval()
    reference.load_state_dict({name.removeprefix("model.language_model."): tensor for name, tensor in tensors.items()})
    ids, embeds = words(model, 70)
    last, chosen, *_ = model(embeds, [70], None, intermediate_output=-2, final_layer_norm_intermediate=False)
    expected = reference(input_ids=ids, output_hidden_states=True)
    assert torch.allclose(last, expected.last_hidden_state, atol=2e-4)
    assert torch.allclose(chosen, expected.hidden_states[-2], atol=2e-4)


def test_it_computes_in_its_inputs_dtype():
    tensors = {name: tensor.bfloat16() for name, tensor in qwen35_tensors(vocabulary=300).items()}
    model, exact = own_model(tensors, torch.bfloat16), own_model({name: tensor.float() for name, tensor in tensors.items()})
    _, embeds = words(model, 9)
    assert torch.allclose(model(embeds, [9])[0], exact(embeds, [9])[0], atol=1e-4)


@pytest.mark.parametrize("eyes", [True, False])
def test_files_are_told_by_layers_with_a_state(eyes):
    for published in (True, False):
        found = recognise(StateDictSource(qwen35_tensors(eyes=eyes, vocabulary=300, published=published)))
        assert found.kind.model is TEModel.QWEN35_2B and (found.config.eyes is not None) is eyes
    shapes = {name: tuple(value.shape) for name, value in qwen35_tensors(vocabulary=300).items()}
    assert read_hybrid_config({name: shape for name, shape in shapes.items() if "linear_attn" not in name}) is None


def test_what_is_remembered_changes_nothing():
    model = own_model(qwen35_tensors(vocabulary=300))
    vectors, _ = model.preprocess_embed({"type": "image", "data": torch.rand(1, 64, 96, 3)}, torch.device("cpu"))
    _, embeds = words(model, 5)
    embeds = torch.cat([embeds[:, :2], vectors[None], embeds[:, 2:]], dim=1)
    said, longer = generate(model, embeds, Sampling(do_sample=False), 6, ()), embeds
    for token in said:
        assert int(model.logits(model(longer, [longer.shape[1]])[0][:, -1:]).argmax()) == token
        longer = torch.cat([longer, model.get_input_embeddings()(torch.tensor([[token]]), out_dtype=torch.float32)], dim=1)
    assert len(said) == 6


def test_a_picture_changes_the_states_by_its_place():
    model = own_model(qwen35_tensors(vocabulary=300))
    vectors, grid = model.preprocess_embed({"type": "image", "data": torch.rand(1, 64, 96, 3)}, torch.device("cpu"))
    assert vectors.shape == (2 * 3, 64) and grid.tolist() == [[1, 4, 6]]
    _, embeds = words(model, 5)
    embeds = torch.cat([embeds[:, :2], vectors[None], embeds[:, 2:]], dim=1)
    infos = [{"type": "image", "index": 2, "size": 6, "extra": grid}]
    assert not torch.allclose(model(embeds, [11], embeds_info=infos)[0], model(embeds, [11])[0], atol=1e-3)


def test_every_size_has_its_tokenizer():
    for name in qwen35.WIDTHS:
        made = find_combination([TEModel[name.upper()]], "stable_diffusion").make([name])
        assert callable(made.tokenizer) and callable(made.clip)
