"""Style models: read, applied, kept, refused."""

import math
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

import comfy.sd
import nodes
from comfy.families.model_errors import IncompleteModelError, UnknownModelError
from comfy.ldm.flux.redux import ReduxImageEncoder
from comfy.loading.style_model import load_style_model
from comfy.t2i_adapter.style import StyleAdapter


def numbers(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def redux_file(folder, width=6, text=8):
    weights = {"redux_up.weight": numbers(3 * text, width), "redux_up.bias": numbers(3 * text)}
    weights |= {"redux_down.weight": numbers(text, 3 * text), "redux_down.bias": numbers(text)}
    save_file({key: value.bfloat16() for key, value in weights.items()}, folder / "redux.safetensors")
    return str(folder / "redux.safetensors"), {key: value.bfloat16().float() for key, value in weights.items()}


def adapter_file(folder, width=16, text=12, tokens=2, blocks=2):
    module = StyleAdapter(width, text, num_head=8, n_layes=blocks, num_token=tokens)
    weights = {key: 0.3 * numbers(*value.shape, seed=number) for number, (key, value) in enumerate(module.state_dict().items())}
    save_file(weights, folder / "style.safetensors")
    return str(folder / "style.safetensors"), weights


def seen(count=1, tokens=5, width=6):
    return SimpleNamespace(last_hidden_state=numbers(count, tokens, width, seed=9))


def test_redux_computes_what_its_definition_says(tmp_path):
    path, weights = redux_file(tmp_path)
    model = comfy.sd.load_style_model(path)
    assert isinstance(model.model, ReduxImageEncoder) and next(model.model.parameters()).dtype == torch.bfloat16
    given = seen()
    inner = given.last_hidden_state @ weights["redux_up.weight"].T + weights["redux_up.bias"]
    expected = torch.nn.functional.silu(inner) @ weights["redux_down.weight"].T + weights["redux_down.bias"]
    assert torch.allclose(model.get_cond(given), expected, atol=1e-5)


def test_the_adapter_computes_what_its_definition_says(tmp_path):
    path, weights = adapter_file(tmp_path)
    given = seen(2, 4, 16)

    def norm(x, name):
        return torch.nn.functional.layer_norm(x, (16,), weights[f"{name}.weight"], weights[f"{name}.bias"])

    def layer(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    x = norm(torch.cat([given.last_hidden_state, weights["style_embedding"].expand(2, -1, -1)], dim=1), "ln_pre")
    for number in range(2):
        block = f"transformer_layes.{number}"
        parts = norm(x, f"{block}.ln_1") @ weights[f"{block}.attn.in_proj_weight"].T + weights[f"{block}.attn.in_proj_bias"]
        q, k, v = (part.unflatten(-1, (8, 2)).transpose(1, 2) for part in parts.chunk(3, dim=-1))
        attended = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(2), dim=-1) @ v
        x = x + layer(attended.transpose(1, 2).flatten(2), f"{block}.attn.out_proj")
        inner = layer(norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc")
        x = x + layer(inner * torch.sigmoid(1.702 * inner), f"{block}.mlp.c_proj")
    expected = norm(x[:, -2:], "ln_post") @ weights["proj"]
    assert torch.allclose(load_style_model(path).get_cond(given), expected, atol=1e-5)


def test_wrong_files_and_encoders_are_told(tmp_path):
    path, _ = redux_file(tmp_path)
    with pytest.raises(ValueError, match="width 6, not 7"):
        load_style_model(path).get_cond(seen(width=7))
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UnknownModelError, match="other.safetensors holds no style model"):
        load_style_model(str(tmp_path / "other.safetensors"))
    save_file({"redux_down.weight": torch.zeros(8, 24), "redux_up.weight": torch.zeros(24, 6)}, tmp_path / "part.safetensors")
    with pytest.raises(IncompleteModelError, match="redux_down.bias"):
        load_style_model(str(tmp_path / "part.safetensors"))


class Fixed:
    """A style model that always says the same two tokens."""

    def get_cond(self, given):
        return torch.ones(1, 2, 4)


def applied(strength, kind, **options):
    return nodes.StyleModelApply().apply_stylemodel([[torch.zeros(1, 3, 4), options]], Fixed(), None, strength, kind)[0][0]


def test_tokens_stand_behind_the_text():
    text, options = applied(0.5, "multiply")
    assert text.shape == (1, 5, 4) and text[:, :3].eq(0).all() and text[:, 3:].eq(0.5).all() and not options
    batch = nodes.StyleModelApply().apply_stylemodel([[torch.zeros(2, 3, 4), {}]], Fixed(), None, 1.0, "attn_bias")[0][0]
    assert batch[0].shape == (2, 5, 4) and not batch[1], "attention is left alone at 1"


def test_a_bias_is_what_all_others_give_the_new_tokens():
    text, options = applied(0.25, "attn_bias")
    mask = options["attention_mask"]
    assert text[:, 3:].eq(1).all() and mask.shape == (1, 6, 6) and options["attention_mask_img_shape"] == (1, 1)
    expected = torch.zeros(6, 6)
    expected[[0, 1, 2, 5], 3:5] = math.log(0.25)
    assert torch.allclose(mask[0].float(), expected, atol=1e-3)
    assert applied(0.0, "attn_bias")[1]["attention_mask"][0, 0, 3] == -math.inf


def test_masks_that_are_there_grow():
    own = torch.tensor([[True, False], [True, True]])[None].repeat_interleave(3, 1)[:, :5].repeat_interleave(3, 2)[:, :, :5]
    _, options = applied(1.0, "multiply", attention_mask=own, attention_mask_img_shape=(2, 1))
    mask = options["attention_mask"][0]
    assert mask.shape == (7, 7) and mask[:, 3:5].eq(0).all() and mask[3:5].eq(0).all()
    kept = mask[[0, 1, 2, 5, 6]][:, [0, 1, 2, 5, 6]]
    assert torch.equal(kept == 0, own[0]) and torch.equal(kept == -math.inf, ~own[0])
