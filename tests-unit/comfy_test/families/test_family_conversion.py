"""Conversion without copies: the plan, the converters, and what a loaded model's storages are."""

import pytest
import torch

from benchmarks.make_checkpoint import checkpoint_layout, family
from comfy.families.clip_text import plan_clip_text
from comfy.families.conversion_mode import ViewConversionMode
from comfy.families.conversion_plan import check_against, plan_conversion
from comfy.families.kl_vae import KlAutoencoder
from comfy.families.model_errors import IncompleteModelError, ModelFileError
from comfy.families.published_layout import open_clip_layout, unet_layout, vae_layout
from comfy.families.weight_source import PrefixedSource, StateDictSource
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel


def random_tensors(layout):
    generator = torch.Generator().manual_seed(1)
    return {key: torch.randn(shape, generator=generator) for key, shape in layout.items()}


def test_the_mode_returns_the_tensor_itself():
    tensor = torch.randn(3, 4)
    with ViewConversionMode():
        assert tensor.clone() is tensor and torch.clone(tensor) is tensor
        assert torch.cat([tensor]) is tensor and torch.cat(tensors=(tensor,), dim=0) is tensor
        assert tensor.T.contiguous().data_ptr() == tensor.data_ptr()
        assert torch.cat([tensor, tensor]).shape == (6, 4)
    assert tensor.clone() is not tensor


def test_views_of_every_kind_are_recorded():
    def convert(tensors):
        return {
            "same": tensors["a"],
            "rows": tensors["a"][2:4].clone(),
            "turned": tensors["a"].T.contiguous(),
            "flat": tensors["b"][:, :, 0, 0],
        }

    plan = plan_conversion({"a": (6, 3), "b": (4, 5, 1, 1), "empty": (0,)}, convert)
    tensors = {"a": torch.randn(6, 3), "b": torch.randn(4, 5, 1, 1)}
    values = plan.parameters(tensors)
    assert values["same"].data_ptr() == tensors["a"].data_ptr()
    assert torch.equal(values["rows"], tensors["a"][2:4]) and torch.equal(values["turned"], tensors["a"].T)
    assert torch.equal(values["flat"], tensors["b"][:, :, 0, 0])
    names = plan.weight_names()
    assert {part.parameter for part in names["a"]} == {"same", "rows"} and names["b"][0].shape == (4, 5)


def test_a_converter_that_copies_is_refused():
    with pytest.raises(ModelFileError, match="copy"):
        plan_conversion({"a": (2,), "b": (2,)}, lambda tensors: {"c": torch.cat([tensors["a"], tensors["b"]])})


def test_missing_and_misshapen_tensors_are_named():
    module = torch.nn.Linear(2, 3, device="meta")
    with pytest.raises(IncompleteModelError, match=r"the thing: 1 of 2 tensors are missing, first bias"):
        check_against(plan_conversion({"weight": (3, 2)}, dict), module, "the thing")
    with pytest.raises(IncompleteModelError, match=r"weight has shape \[3, 4\] where \[3, 2\] is needed"):
        check_against(plan_conversion({"weight": (3, 4), "bias": (3,)}, dict), module, "the thing")


@pytest.mark.parametrize("name", ["sd15", "sdxl", "sdxl-refiner"])
def test_full_size_layouts_convert_without_copying_a_byte(name):
    """Shapes only: every tensor of the published UNet, text model and VAE is used by views, and nothing is left over."""
    sizes = family(name)
    for network, layout in (
        (UNetModel(**sizes.unet.as_dict()), unet_layout(sizes.unet)),
        (KlAutoencoder(sizes.vae), vae_layout(sizes.vae)),
    ):
        assert {name: tuple(parameter.shape) for name, parameter in network.named_parameters()} == layout
    if sizes.clip_g is not None:
        text = open_clip_layout(sizes.clip_g)
        assert set(plan_clip_text(text, sizes.clip_g.hidden_size).keys()) == set(text) - {"logit_scale"}


def test_full_size_layouts_have_the_published_number_of_tensors():
    assert len(checkpoint_layout(family("sd15"))) == 1130
    assert len(checkpoint_layout(family("sdxl"))) == 2514


def test_the_fused_projection_becomes_three_views():
    sizes = family("sdxl", 10)
    tensors = random_tensors(open_clip_layout(sizes.clip_g))
    values = plan_clip_text({key: tuple(tensor.shape) for key, tensor in tensors.items()}, 96).parameters(tensors)
    fused = tensors["transformer.resblocks.1.attn.in_proj_weight"]
    for index, part in enumerate("qkv"):
        value = values[f"text_model.encoder.layers.1.self_attn.{part}_proj.weight"]
        assert torch.equal(value, fused[index * 96 : (index + 1) * 96])
        assert value.untyped_storage().data_ptr() == fused.untyped_storage().data_ptr()
    assert torch.equal(values["text_projection.weight"], tensors["text_projection"].T)


def test_a_state_dict_source_gives_its_own_tensors_and_lets_them_go():
    tensors = {"x.a": torch.randn(2), "x.b": torch.randn(2).half(), "y": torch.arange(3)}
    source = PrefixedSource(StateDictSource(tensors, consume=True), "x.", "z.")
    assert set(source.shapes()) == {"z.a", "z.b"} and source.dtype("z.b") == torch.float16
    kept = tensors["x.a"]
    taken = source.take(["z.a", "z.b"], torch.float32)
    assert taken["z.a"].data_ptr() == kept.data_ptr() and taken["z.b"].dtype == torch.float32
    assert set(tensors) == {"y"}
