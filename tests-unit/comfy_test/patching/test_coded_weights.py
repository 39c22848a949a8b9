"""Weights whose numbers only a node pack can read are loaded, patched, moved and put back as they are."""

import pytest
import torch
from coded_weights import CodedOps, CodedPatcher, CodedTensor
from residency_models import management

import comfy.model_management
import comfy.sd
from benchmarks.make_checkpoint import checkpoint_layout, family, random_tensor
from comfy.families.conversion_plan import TensorView, assign
from comfy.families.model_errors import IncompleteModelError, QuantisedModelError
from comfy.families.published_weights import load_published
from comfy.families.weight_names import WeightNames, WeightPart
from comfy.families.weight_source import StateDictSource

KEY = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
ROOMS = pytest.mark.parametrize("vram_bytes", [None, 1 << 24, 1 << 20], ids=["cpu", "simulated", "partial"])
PREFIX = "model.diffusion_model."


def tensors():
    """A small UNet's tensors in published names; matrices are such that halves lose nothing."""
    generator = torch.Generator().manual_seed(2)
    layout = checkpoint_layout(family("sd15", 10), ["unet"])
    return {key.removeprefix(PREFIX): random_tensor(key, shape, generator).half().float() for key, shape in layout.items()}


def coded():
    return {key: CodedTensor.code(tensor) if tensor.ndim == 2 else tensor for key, tensor in tensors().items()}


def output(patcher, manager):
    """What the model computes once *patcher* is loaded."""
    manager.load_models_gpu([patcher])
    generator = torch.Generator().manual_seed(4)
    x, context = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 7, 64, generator=generator)
    return patcher.model.apply_model(x, torch.ones(1), c_crossattn=context)


@ROOMS
@torch.inference_mode()
def test_a_coded_model_gives_what_its_decoded_weights_give_with_and_without_patches(vram_bytes):
    with management(vram_bytes) as manager:
        metadata = family("sd15", 10).metadata()
        plain = comfy.sd.load_diffusion_model_state_dict(tensors(), metadata=metadata)
        loaded = comfy.sd.load_diffusion_model_state_dict(coded(), {"custom_operations": CodedOps()}, metadata=metadata)
        odd = CodedPatcher.clone(loaded)
        expected = output(plain, manager)
        assert torch.equal(output(odd, manager), expected)
        shape = plain.model_state_dict()[KEY].shape
        patches = {KEY: (torch.full(shape, 0.5),), "diffusion_model.input_blocks.0.0.bias": (torch.ones(32),)}
        plain_patched, odd_patched = plain.clone(), odd.clone()
        for patcher in (plain_patched, odd_patched):
            assert set(patcher.add_patches(patches)) == set(patches)
        changed = output(plain_patched, manager)
        assert not torch.allclose(changed, expected)
        assert torch.equal(output(odd_patched, manager), changed)
        assert torch.equal(output(odd, manager), expected)
        assert torch.equal(output(odd_patched, manager), changed)
        manager.unload_all_models()
        weight = odd.model_state_dict()[KEY]
        assert type(weight) is CodedTensor and weight.patches == [] and weight.shape == shape


def test_layers_that_load_themselves_get_their_own_tensors_and_report_missing_ones():
    module = torch.nn.ModuleDict({"a": CodedOps.Linear(3, 2), "b": torch.nn.Linear(2, 2)}).requires_grad_(False)
    values = {"a.weight": CodedTensor.code(torch.ones(2, 3)), "b.weight": torch.ones(2, 2), "b.bias": torch.ones(2)}
    load_published(module, StateDictSource(dict(values)), torch.float32, "the model")
    assert type(module["a"].weight) is CodedTensor and module["a"].bias is None and torch.equal(module["b"].bias, torch.ones(2))
    values.pop("a.weight")
    module["a"] = CodedOps.Linear(3, 2)
    with pytest.raises(IncompleteModelError, match=r"a\.weight is missing"):
        load_published(module, StateDictSource(values), torch.float32, "the model")


def test_parameters_without_a_value_stay():
    layer = torch.nn.Linear(2, 2)
    bias = layer.bias
    assign(layer, {"weight": torch.ones(2, 2), "other": torch.ones(1)})
    assert layer.bias is bias and torch.equal(layer.weight, torch.ones(2, 2))


def test_a_coded_tensor_is_passed_on_whole_and_never_cut():
    tensor = CodedTensor.code(torch.ones(4, 3))
    assert TensorView("a", 0, (4, 3), (3, 1)).of(tensor) is tensor
    with pytest.raises(QuantisedModelError, match="a is a CodedTensor"):
        TensorView("a", 6, (2, 3), (3, 1)).of(tensor)
    names = WeightNames({"a": (WeightPart("here", 0, 0, 4),)}, {"a": (4, 3)})
    assert names.join("a", {"here": tensor}.__getitem__, torch.cat) is tensor
    assert names.split("a", tensor) == {"here": tensor}
