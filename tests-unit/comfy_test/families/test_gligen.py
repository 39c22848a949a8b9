"""GLIGEN: reading its files, boxes as values, what the layers add, and the nodes."""

import pytest
import torch
from safetensors.torch import save_file
from transformer_files import random_weight

import comfy.sd
from comfy.families.model_errors import ModelFileError
from comfy.gligen import GatedSelfAttentionDense, Gligen, PositionNet, load_gligen
from comfy.sampling.cond_regions import place_cond
from comfy_extras import core_gligen

WIDTH = 64  # of texts; heads are as wide
BLOCKS = (("input_blocks.10.1", 64), ("input_blocks.2.1", 64), ("output_blocks.3.1", 128), ("middle_block.1", 64))
ORDERED = (64, 64, 64, 128)


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def gligen_tensors(text=WIDTH, seed=0):
    """A small model of four blocks, in no order."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {f"position_net.{name}": value.shape for name, value in PositionNet(text, text).named_parameters()}
    for block, width in BLOCKS:
        layers = GatedSelfAttentionDense(width, text, width // WIDTH, WIDTH)
        shapes |= {f"{block}.transformer_blocks.0.fuser.{name}": value.shape for name, value in layers.named_parameters()}
    return {
        name: torch.rand((), generator=generator) if name.endswith(("alpha_attn", "alpha_dense")) else random_weight(name, shape, generator)
        for name, shape in shapes.items()
    }


def test_layers_are_in_the_order_of_their_blocks():
    model = load_gligen(gligen_tensors())
    assert tuple(layer.norm1.weight.shape[0] for layer in model.module_list) == ORDERED and model.key_dim == WIDTH
    tensors = gligen_tensors()
    assert model.module_list[0].linear.weight is not None
    assert torch.equal(model.module_list[0].linear.weight, tensors["input_blocks.2.1.transformer_blocks.0.fuser.linear.weight"])


def test_boxes_change_what_is_near_and_none_is_what_was_learnt():
    model = load_gligen(gligen_tensors())
    x, shape, host = torch.rand(2, 6, 64), (2, 4, 8, 8), torch.device("cpu")
    box = (torch.rand(1, WIDTH), 4, 2, 0, 6)
    placed, empty = (model.set_position(shape, boxes, host)(x, {"transformer_index": 1}) for boxes in ((box,), ()))
    assert placed.shape == x.shape and not torch.allclose(placed, empty, atol=1e-4)
    assert torch.equal(empty, model.set_empty(shape, host)(x, {"transformer_index": 1}))
    other = model.set_position(shape, ((box[0], 4, 2, 0, 0),), host)(x, {"transformer_index": 1})
    assert not torch.allclose(placed, other, atol=1e-5)
    model.module_list[1].scale = 0.0
    assert torch.equal(model.set_position(shape, (box,), host)(x, {"transformer_index": 1}), x)


def test_too_many_boxes_and_other_texts_are_refused():
    model = Gligen([], PositionNet(WIDTH, WIDTH), WIDTH)
    box = (torch.rand(1, WIDTH), 1, 1, 0, 0)
    with pytest.raises(ValueError, match="30 boxes at most, not 31"):
        model.set_position((1, 4, 8, 8), (box,) * 31, torch.device("cpu"))
    with pytest.raises(ValueError, match=f"texts encoded to {WIDTH} values, not 7"):
        model.set_position((1, 4, 8, 8), ((torch.rand(1, 7), 1, 1, 0, 0),), torch.device("cpu"))


def test_a_file_without_layers_names_itself(tmp_path):
    save_file({"a.weight": torch.ones(2)}, str(tmp_path / "odd.safetensors"))
    with pytest.raises(ModelFileError, match=r"odd\.safetensors.*use a GLIGEN file"):
        comfy.sd.load_gligen(str(tmp_path / "odd.safetensors"))


class Clip:
    """A text encoder whose pooled output is unprojected."""

    def tokenize(self, text):
        return text

    def encode_from_tokens(self, tokens, return_pooled):
        assert return_pooled == "unprojected"
        return torch.zeros(1, 2, WIDTH), torch.full((1, WIDTH), float(len(tokens)))


def test_the_nodes_add_boxes_that_become_patches(tmp_path, monkeypatch):
    save_file(gligen_tensors(), str(tmp_path / "gligen.safetensors"))
    monkeypatch.setattr(core_gligen.folder_paths, "get_full_path_or_raise", lambda _, name: str(tmp_path / name))
    (model,) = core_gligen.GLIGENLoader().load_gligen("gligen.safetensors")
    conditioning = [[torch.zeros(1, 2, WIDTH), {"kept": 1}]]
    apply = core_gligen.GLIGENTextBoxApply().append
    (once,) = apply(conditioning, Clip(), model, "a cat", 64, 32, 8, 16)
    (twice,) = apply(once, Clip(), model, "dog", 8, 8, 0, 0)
    kind, patcher, boxes = twice[0][1]["gligen"]
    assert kind == "position" and patcher is model and twice[0][1]["kept"] == 1 and "gligen" not in conditioning[0][1]
    assert [(float(text[0, 0]), *sides) for text, *sides in boxes] == [(5.0, 4, 8, 2, 1), (3.0, 1, 1, 0, 0)]
    cond = {"model_conds": {}, "uuid": 1, "gligen": twice[0][1]["gligen"]}
    placed = place_cond(cond, torch.zeros(2, 4, 8, 8), torch.ones(2))
    (patch,) = placed.patches["middle_patch"]
    assert patch(torch.zeros(2, 6, 128), {"transformer_index": 3}).shape == (2, 6, 128)
    assert place_cond({**cond, "gligen": ("", model, ())}, torch.zeros(2, 4, 8, 8), torch.ones(2)).patches is not None
