"""T5 and UMT5 encoders: sizes from shapes, transformers' numbers, weights as views, quantised and low-precision ones."""

import pytest
import torch
from quantised_files import quantised, settings_for, text
from text_encoder_files import T5_HEADS, T5_WIDTH, text_model
from transformers import T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

import comfy.ops
from comfy.families.model_errors import IncompleteModelError
from comfy.families.quantised_weights import plain_weights
from comfy.families.t5_text import T5Transformer
from comfy.families.t5_text_config import read_t5_config
from comfy.families.t5_text_sizes import T5_BASE, T5_XXL, T5_XXL_OLD, UMT5_XXL
from comfy.families.weight_source import StateDictSource
from comfy.quantisation.weights import is_quantised

VOCABULARY = 300
KINDS = {"t5xxl": (T5Config, T5EncoderModel), "umt5xxl": (UMT5Config, UMT5EncoderModel), "t5base": (T5Config, T5EncoderModel)}


def shapes_of(tensors):
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def loaded(tensors, dtype=torch.float32):
    source = plain_weights(StateDictSource(dict(tensors)))
    model = T5Transformer(read_t5_config(source.shapes()), comfy.ops.pick_operations(dtype, torch.float32), dtype)
    model.load_weights(source, dtype, "t5")
    return model


def encoded(model, ids, mask=None, layer=None):
    with torch.inference_mode():
        embeds = model.get_input_embeddings()(ids, out_dtype=torch.float32)
        return model(embeds, [1] * len(ids), mask, intermediate_output=layer)


@pytest.fixture(scope="module")
def ids():
    return torch.randint(3, VOCABULARY, (2, 40), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def mask(ids):
    mask = torch.ones_like(ids)
    mask[0, 9:] = 0
    return mask


@pytest.mark.parametrize("kind", KINDS)
def test_states_are_those_of_transformers(kind, ids, mask):
    tensors = text_model(kind, vocabulary=VOCABULARY)
    config = read_t5_config(shapes_of(tensors))
    reference = KINDS[kind][1](KINDS[kind][0](**config.transformers_arguments())).eval()
    reference.load_state_dict({**tensors, "encoder.embed_tokens.weight": tensors["shared.weight"]})
    model = loaded(tensors)
    for own_mask in (mask, None):
        with torch.inference_mode():
            expected = reference(input_ids=ids, attention_mask=own_mask, output_hidden_states=True)
        last, chosen, *pooled = encoded(model, ids, own_mask, layer=-2)
        assert torch.allclose(last, expected.last_hidden_state, atol=1e-5) and pooled == [None, None]
        norm = reference.encoder.final_layer_norm(expected.hidden_states[-2])
        assert torch.allclose(chosen, norm, atol=1e-5)


def test_several_layers_are_refused(ids):
    with pytest.raises(ValueError, match="one hidden layer"):
        encoded(loaded(text_model("t5xxl", vocabulary=VOCABULARY)), ids, layer=[0, 1])


def test_sizes_are_in_the_shapes():
    config = read_t5_config(shapes_of(text_model("umt5xxl", vocabulary=VOCABULARY)))
    assert (config.vocabulary, config.hidden_size, config.num_heads, config.num_layers) == (VOCABULARY, T5_WIDTH, T5_HEADS, 3)
    assert config.gated and config.bias_per_layer
    assert read_t5_config({"text_model.embeddings.token_embedding.weight": (49408, 64)}) is None


@pytest.mark.parametrize(("sizes", "parameters"), [(T5_XXL, 4.76e9), (UMT5_XXL, 5.68e9), (T5_XXL_OLD, 4.86e9), (T5_BASE, 0.11e9)])
def test_published_sizes(sizes, parameters):
    model = T5Transformer(sizes, comfy.ops.disable_weight_init)
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(parameters, rel=0.01)


def test_weights_are_the_files_memory(caplog):
    tensors = text_model("t5xxl", vocabulary=VOCABULARY)
    model = loaded({**tensors, "encoder.embed_tokens.weight": tensors["shared.weight"], "decoder.final_layer_norm.weight": torch.ones(4)})
    own = {parameter.data_ptr() for parameter in model.parameters()}
    assert own == {tensor.data_ptr() for tensor in tensors.values()}
    assert "not used" not in caplog.text


def test_a_table_may_have_the_encoders_name(ids):
    tensors = text_model("t5xxl", vocabulary=VOCABULARY)
    expected = encoded(loaded(tensors), ids)[0]
    tensors["encoder.embed_tokens.weight"] = tensors.pop("shared.weight")
    assert torch.equal(encoded(loaded(tensors), ids)[0], expected)


def test_missing_tensors_are_named():
    tensors = text_model("t5xxl", vocabulary=VOCABULARY)
    del tensors["encoder.block.1.layer.1.DenseReluDense.wo.weight"]
    with pytest.raises(IncompleteModelError, match=r"block\.1\.layer\.1\.DenseReluDense\.wo"):
        loaded(tensors)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_weights_may_be_kept_in_less(dtype, ids, mask):
    tensors = text_model("t5xxl", vocabulary=VOCABULARY)
    expected = encoded(loaded({name: tensor.to(dtype).float() for name, tensor in tensors.items()}), ids, mask)[0]
    model = loaded({name: tensor.to(dtype) for name, tensor in tensors.items()}, dtype)
    states = encoded(model, ids, mask)[0]
    assert {parameter.dtype for parameter in model.parameters()} == {dtype} and states.dtype == torch.float32
    assert (states - expected).norm() / expected.norm() < 1e-5  # computed in float32: only the weights are rounded
    assert not torch.equal(states, encoded(loaded(tensors), ids, mask)[0])


@pytest.mark.parametrize("kind", ["fp8", "int8 rows", "nvfp4", "mxfp8"])
def test_quantised_layers_give_what_their_weights_mean(kind, ids, mask):
    pytest.importorskip("comfy_kitchen")
    tensors = text_model("t5xxl", vocabulary=VOCABULARY)
    stored, meant = dict(tensors), dict(tensors)
    for name in [name for name in tensors if "SelfAttention." in name and "bias" not in name or "DenseReluDense" in name]:
        parts, meant[name] = quantised(kind, tensors[name])
        del stored[name]
        layer = name.removesuffix("weight")
        stored |= {f"{layer}{suffix}": tensor for suffix, tensor in parts.items()} | {f"{layer}comfy_quant": text(settings_for(kind))}
    model = loaded(stored)
    assert sum(map(is_quantised, model.parameters())) == 24 * 7
    states, expected = encoded(model, ids, mask)[0], encoded(loaded(meant), ids, mask)[0]
    assert (states - expected).norm() / expected.norm() < (1e-4 if kind != "int8 rows" else 0.05)
