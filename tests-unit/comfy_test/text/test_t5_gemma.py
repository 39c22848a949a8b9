"""T5Gemma: transformers' numbers, which file it is, zeros for padding, its tokenizer."""

import pytest
import torch
from safetensors.torch import save_file
from t5_gemma_files import HEADS, WIDTH, t5_gemma_tensors, with_words
from transformers.models.t5gemma.configuration_t5gemma import T5GemmaModuleConfig
from transformers.models.t5gemma.modeling_t5gemma import T5GemmaEncoder

import comfy.ops
import comfy.sd
from comfy.families.weight_source import StateDictSource
from comfy.text import t5_gemma
from comfy.text.kinds import recognise
from comfy.text.t5_gemma import T5_GEMMA, T5GemmaModel, read_t5_gemma_config
from comfy.text.te_models import TEModel
from comfy.text_encoders import sa3


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


def own_model(tensors):
    found = recognise(StateDictSource(tensors))
    assert found.kind.model is TEModel.T5_GEMMA
    model = T5GemmaModel(found.config, comfy.ops.disable_weight_init)
    assert model.load_weights(found.source, torch.float32, "t5gemma") == tensors.keys()
    return model


def test_states_are_those_of_transformers(monkeypatch):
    tensors = t5_gemma_tensors()
    model = own_model(tensors)
    config = T5GemmaModuleConfig(**model.config.transformers_arguments(), attn_implementation="eager")
    config.is_decoder, config.dropout_rate = False, 0.0
    reference = T5GemmaEncoder(config).eval()
    reference.load_state_dict({name.removeprefix("model.encoder."): value for name, value in tensors.items()})
    ids = torch.randint(3, 300, (1, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[1] * 9 + [0] * 3])
    embeds = model.get_input_embeddings()(ids, out_dtype=torch.float32)
    last, chosen, *_ = model(embeds, [12], mask, 1, False)
    expected = reference(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    assert torch.allclose(last[:, :9], expected.last_hidden_state[:, :9], atol=1e-4)
    assert torch.allclose(chosen[:, :9], expected.hidden_states[2][:, :9], atol=1e-4)
    monkeypatch.setattr(t5_gemma, "NEAR", 4)
    assert not torch.allclose(model(embeds, [12], mask)[0], last, atol=1e-3)


def test_other_files_are_none():
    shapes = {name: tuple(value.shape) for name, value in t5_gemma_tensors().items()}
    assert read_t5_gemma_config(shapes).num_heads == HEADS
    assert read_t5_gemma_config({name: shape for name, shape in shapes.items() if "pre_self_attn" not in name}) is None


def test_published_sizes():
    model = T5GemmaModel(T5_GEMMA, comfy.ops.disable_weight_init)
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(281e6, rel=0.01)


def test_prompts_have_no_marks_and_no_states_for_padding(tmp_path):
    pytest.importorskip("sentencepiece", reason="its tokenizer needs it")
    save_file(with_words(t5_gemma_tensors()), str(tmp_path / "t5gemma.safetensors"))
    clip = comfy.sd.load_clip([str(tmp_path / "t5gemma.safetensors")], clip_type=comfy.sd.CLIPType.STABLE_AUDIO)
    assert type(clip.cond_stage_model) is sa3.SAT5GemmaModel
    tokens = clip.tokenize("a red apple", min_length=40)
    (chunk,) = tokens["t5gemma"]
    count = sum(token != 0 for token, _ in chunk)
    states = clip.encode_from_tokens(tokens, return_dict=True)
    assert len(chunk) == 40 and 2 not in [token for token, _ in chunk] and states["cond"].shape == (1, 40, WIDTH)
    assert bool((states["cond"][:, count:] == 0).all()) and states["pooled_output"] is None
