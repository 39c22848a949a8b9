"""Union ControlNets against diffusers' own network, and what is refused."""

import pytest
import torch
from control_files import HEADS, SIZES, WIDTHS
from diffusers.models.controlnets.controlnet_union import ControlNetUnionModel

import comfy.controlnet
from comfy.cldm.control_types import UNION_CONTROLNET_TYPES
from comfy.cldm.union import UnionControlNet
from comfy.cli_args import args
from comfy.families.model_errors import IncompleteModelError
from comfy.families.weight_source import StateDictSource
from comfy_extras.nodes_controlnet import SetUnionControlNetType

KINDS = 6


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    monkeypatch.setattr(args, "cpu", True)


@pytest.fixture(scope="module")
def reference():
    """diffusers' own network with random weights, zero convolutions included."""
    sizes = {**SIZES, "num_trans_channel": WIDTHS[0], "num_proj_channel": WIDTHS[0], "num_control_type": KINDS}
    network = ControlNetUnionModel(**sizes, addition_time_embed_dim=256).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return network


def tensors(reference):
    return {name: tensor.clone() for name, tensor in reference.state_dict().items()}


@pytest.fixture
def network(reference):
    return comfy.controlnet.build_control_network(StateDictSource(tensors(reference), "union.safetensors", HEADS))


def given():
    generator = torch.Generator().manual_seed(5)
    shapes = {"x": (1, 4, 8, 8), "hint": (1, 3, 64, 64), "context": (1, 7, 48)}
    return {"timesteps": torch.full((1,), 500.0)} | {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}


@pytest.mark.parametrize("kind", [0, 3, 5])
def test_residuals_are_those_of_diffusers_own_network(reference, network, kind):
    inputs = given()
    told = torch.zeros(1, KINDS)
    told[0, kind] = 1
    told_to = (inputs["x"], inputs["timesteps"], inputs["context"], [inputs["hint"]], told, [kind])
    down, middle = reference(*told_to, return_dict=False)  # of one picture: diffusers' transformer looks from one to the other
    residuals = network(**inputs, control_type=[kind])
    assert isinstance(network, UnionControlNet) and torch.allclose(residuals["middle"][0], middle, atol=1e-5)
    assert all(torch.allclose(own, other, atol=1e-5) for own, other in zip(residuals["output"], down, strict=True))


def test_an_untold_kind_is_none_of_them(network):
    inputs = given()
    untold, empty, told = (network(**inputs, **options)["middle"][0] for options in ({}, {"control_type": []}, {"control_type": [1]}))
    assert torch.equal(untold, empty) and not torch.allclose(untold, told, atol=1e-4)


def test_kinds_that_it_does_not_know_and_several_are_refused(network):
    with pytest.raises(ValueError, match="knows 6 kinds of hints, and tile is none"):
        network(**given(), control_type=[UNION_CONTROLNET_TYPES["tile"]])
    with pytest.raises(ValueError, match="one kind of hint, not 2"):
        network(**given(), control_type=[0, 1])


def test_the_node_tells_a_copy(reference):
    control = comfy.controlnet.load_controlnet_state_dict(tensors(reference))
    told = SetUnionControlNetType.execute(control, "depth").args[0]
    assert told is not control and told.extra_args == {"control_type": [1]} and not control.extra_args
    assert SetUnionControlNetType.execute(told, "auto").args[0].extra_args == {"control_type": []}
    assert told.control_model is control.control_model


def test_a_missing_tensor_is_an_error_of_the_file(reference):
    damaged = tensors(reference)
    del damaged["transformer_layes.0.attn.in_proj_bias"]
    with pytest.raises(IncompleteModelError, match="attn.in_proj_bias"):
        comfy.controlnet.build_control_network(StateDictSource(damaged, "union.safetensors", HEADS))
