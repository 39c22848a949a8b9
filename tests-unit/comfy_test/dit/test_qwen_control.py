"""ControlNets for Qwen-Image: what files hold, residuals, masks, what is borrowed, applied pictures, errors."""

import types

import pytest
import torch
from image_family_files import numbers
from transformer_files import qwen_control_tensors, qwen_fun_tensors, qwen_image_tensors

import comfy.controlnet
import comfy.model_patcher
import comfy.sample
import comfy.sd
from comfy.control import qwen
from comfy.control.weights import build_control_network
from comfy.families.model_errors import IncompleteModelError, UnknownModelError
from comfy.families.weight_source import StateDictSource
from comfy.ldm.qwen_image.controlnet import QwenImageControlNetModel, QwenImageFunControlNetModel
from comfy_extras.nodes_controlnet import ControlNetInpaintingAliMamaApply

FILES = {"InstantX": qwen_control_tensors, "filling in": lambda: qwen_control_tensors(mask=True), "Fun": qwen_fun_tensors}
LIGHT = torch.full((1, 3, 48, 64), 0.9)


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def patcher():
    return comfy.sd.load_diffusion_model_state_dict(qwen_image_tensors(depth=13), model_options={"dtype": torch.float32})


class Autoencoder:
    def spacial_compression_encode(self):
        return 8

    def encode(self, pictures):
        means = torch.nn.functional.avg_pool2d(pictures.movedim(-1, 1), 8).mean(dim=1, keepdim=True)
        return means.repeat(1, 16, 1, 1).unsqueeze(2)


def control_of(name):
    return comfy.controlnet.load_controlnet_state_dict(FILES[name](), model_options={"dtype": torch.float32})


def residuals(control, patcher, frames=1):
    control.pre_run(patcher.model, lambda percent: 1.0 - percent)
    found = control.get_control(numbers(2, 16, frames, 6, 8), torch.tensor([0.5, 0.5]), {"c_crossattn": numbers(2, 5, 48)}, 2, {})
    control.cleanup()
    assert "base_model" not in control.extra_args
    return found["input"]


@pytest.mark.parametrize(
    ("name", "kind", "network"),
    [
        ("InstantX", comfy.controlnet.QwenControlNet, QwenImageControlNetModel),
        ("filling in", comfy.controlnet.QwenControlNet, QwenImageControlNetModel),
        ("Fun", comfy.controlnet.QwenFunControlNet, QwenImageFunControlNetModel),
    ],
)
def test_files_make_controls_whose_residuals_are_for_the_models_blocks(patcher, name, kind, network):
    control = control_of(name)
    assert type(control) is kind and type(control.copy()) is kind and type(control.control_model) is network
    assert control.compression_ratio == 1 and control.latent_format.latent_channels == 16 and control.extra_conds == []
    assert control.concat_mask is (name == "filling in")
    dark, light = (residuals(control.copy().set_cond_hint(LIGHT * share, vae=Autoencoder()), patcher) for share in (0, 1))
    assert len(dark) == 60
    given = [number for number, residual in enumerate(light) if residual is not None]
    assert given == ([0, 12, 24, 36, 48] if name == "Fun" else list(range(60)))
    assert all(light[number].shape == (2, 12, 64) and not torch.allclose(dark[number], light[number]) for number in given)


def test_every_block_of_instantx_serves_its_share_of_the_models(patcher):
    found = residuals(control_of("InstantX").set_cond_hint(LIGHT, vae=Autoencoder()), patcher)
    assert found[0] is found[29] and found[30] is found[59] and not torch.allclose(found[0], found[30])


@pytest.mark.parametrize(("name", "power"), [("InstantX", 1.0), ("Fun", 0.5)])
def test_strength_is_applied_once_to_residuals_that_are_shared(patcher, name, power):
    full, less = (residuals(control_of(name).set_cond_hint(LIGHT, strength, vae=Autoencoder()), patcher)[0] for strength in (1.0, 0.25))
    torch.testing.assert_close(less, full * 0.25**power)


def test_a_hint_of_one_frame_steers_the_first_of_several(patcher):
    control = control_of("Fun").set_cond_hint(LIGHT, vae=Autoencoder())
    assert residuals(control, patcher, frames=3)[0].shape == (2, 12, 64)


def test_filling_in_gives_the_mask_and_the_picture_without_that_part():
    mask = torch.zeros(1, 48, 64)
    mask[:, :, 32:] = 1.0
    told, picture = [[numbers(1, 5, 48), {}]], LIGHT.movedim(1, -1)

    def applied(name):
        node = ControlNetInpaintingAliMamaApply.execute(told, told, control_of(name), Autoencoder(), picture, mask, 1.0, 0.0, 1.0)
        return node.args[0][0][1]["control"]

    filling = applied("filling in")
    hint = filling._fitting_hint(numbers(2, 16, 1, 6, 8), torch.float32)
    assert hint.shape == (1, 17, 1, 6, 8)
    assert hint[0, 16, 0].tolist() == [[1.0] * 4 + [0.0] * 4] * 6
    assert torch.allclose(hint[0, :16, 0, :, 4:], filling.latent_format.process_in(torch.zeros(1, 16, 1, 1, 1))[0, :, 0])
    assert not torch.allclose(hint[0, :16, 0, :, :4], hint[0, :16, 0, :, 4:])
    plain = applied("InstantX")
    assert plain.extra_concat_orig == [] and torch.equal(plain.cond_hint_original, LIGHT)


@pytest.mark.parametrize("name", FILES)
def test_the_applied_control_changes_the_picture(patcher, name):
    def sampled(control=None):
        sides = [[[numbers(1, 5, 48), {} if control is None else {"control": control, "control_apply_to_uncond": True}]]] * 2
        noise = numbers(1, 16, 1, 6, 8)
        return comfy.sample.sample(patcher, noise, 1, 1.0, "euler", "simple", *sides, torch.zeros_like(noise), disable_pbar=True, seed=1)

    plain = sampled()
    steered, again = (sampled(control_of(name).set_cond_hint(LIGHT, vae=Autoencoder())) for _ in range(2))
    assert torch.isfinite(steered).all() and torch.equal(steered, again)
    assert ((steered - plain).norm() / plain.norm()).item() > 0.01
    assert torch.equal(sampled(), plain)


def test_errors_say_what_does_not_fit(patcher):
    control = control_of("Fun")
    with pytest.raises(ValueError, match="connect a VAE"):
        residuals(control.copy().set_cond_hint(LIGHT), patcher)
    other = types.SimpleNamespace(diffusion_model=object(), model_sampling=None, source_name="other.safetensors")
    with pytest.raises(ValueError, match="the state dict is a ControlNet for Qwen-Image.*other.safetensors is another"):
        control.copy().pre_run(other, lambda percent: 0.0)
    wide = comfy.sd.load_diffusion_model_state_dict(qwen_image_tensors(width=96, depth=1), model_options={"dtype": torch.float32})
    with pytest.raises(ValueError, match="64 values per token"):
        residuals(control_of("InstantX").set_cond_hint(LIGHT, vae=Autoencoder()), wide)
    tensors = qwen_fun_tensors()
    del tensors["control_blocks.3.after_proj.weight"]
    with pytest.raises(IncompleteModelError, match="control_blocks.3.after_proj.weight"):
        comfy.controlnet.load_controlnet_state_dict(tensors)
    tensors = qwen_control_tensors()
    del tensors["txt_norm.weight"]
    with pytest.raises(UnknownModelError, match="not all that tell its sizes"):
        build_control_network(StateDictSource(tensors, "x.safetensors", consume=True))


def test_models_are_no_controls():
    assert not qwen.is_qwen_control(dict.fromkeys(qwen_image_tensors()))
    assert all(qwen.is_qwen_control(dict.fromkeys(make())) for make in FILES.values())
