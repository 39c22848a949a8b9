"""ControlNets for Stable Diffusion 3.5: what files hold, how hints are prepared, what is borrowed from the model, errors."""

import types

import pytest
import torch
from image_family_files import numbers, sd3_config, sd3_tensors, sd35_control_tensors

import comfy.controlnet
import comfy.sd
from comfy.cldm.dit_embedder import ControlNetEmbedder
from comfy.control import sd35
from comfy.families.model_errors import IncompleteModelError

MODEL = {"pooled": 48, "normalised": True}


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def control_of(kind, double):
    return comfy.controlnet.load_controlnet_state_dict(
        sd35_control_tensors(kind, double=double, pooled=48), model_options={"dtype": torch.float32}
    )


@pytest.fixture(scope="module")
def model():
    return comfy.sd.load_diffusion_model_state_dict(sd3_tensors(**MODEL), model_options={"dtype": torch.float32}).model


class Autoencoder:
    def spacial_compression_encode(self):
        return 8

    def encode(self, pictures):
        return torch.nn.functional.avg_pool2d(pictures.movedim(-1, 1), 8).mean(dim=1, keepdim=True).repeat(1, 16, 1, 1)


def residuals(control, model, hint, vae=None):
    control = control.copy().set_cond_hint(hint, vae=vae)
    control.pre_run(model, lambda percent: 1000.0 * (1 - percent))
    x = numbers(1, 16, 4, 6)
    found = control.get_control(x, torch.tensor([0.5]), {"c_crossattn": numbers(1, 5, 48), "y": numbers(1, 48)}, 1, {})["output"]
    control.cleanup()
    assert "borrowed" not in control.extra_args
    return found


@pytest.mark.parametrize(("kind", "double"), [(0, False), (1, True), (2, False)])
def test_residuals_are_for_each_block_and_follow_the_hint(model, kind, double):
    control = control_of(kind, double)
    network = control.control_model
    assert type(control) is comfy.controlnet.ControlNetSD35 and type(network) is ControlNetEmbedder
    assert control.latent_format.latent_channels == 16 and control.compression_ratio == 1 and network.double_y_emb is double
    dark, light = (residuals(control, model, torch.full((1, 3, 32, 48), value), Autoencoder()) for value in (0.0, 0.9))
    assert len(dark) == 2 and dark[0].shape == (1, 6, 128)
    assert torch.isfinite(light[0]).all() and not torch.allclose(dark[0], light[0])
    steered = model.diffusion_model(numbers(1, 16, 4, 6), torch.tensor([500.0]), numbers(1, 5, 48), numbers(1, 48), {"output": light})
    assert steered.shape == (1, 16, 4, 6)


def test_hints_are_prepared_by_their_kind():
    picture = torch.tensor([0.0, 0.5, 1.0])
    assert sd35.PREPARATIONS[1](picture).tolist() == [0.5, 64.25, 128.0]
    assert sd35.PREPARATIONS[2](picture).tolist() == [1.0, 0.5, 0.0]
    assert control_of(0, False).preprocess_image(picture) is picture


def test_errors_say_what_is_missing(model):
    control = control_of(1, True)
    with pytest.raises(ValueError, match="connect a VAE"):
        residuals(control, model, torch.zeros(1, 3, 32, 48))
    other = types.SimpleNamespace(diffusion_model=object(), model_sampling=None)
    with pytest.raises(ValueError, match="for Stable Diffusion 3.5"):
        control.copy().set_cond_hint(torch.zeros(1, 3, 32, 48)).pre_run(other, lambda percent: 0.0)
    tensors = sd35_control_tensors(1, double=True, pooled=48)
    del tensors["controlnet_blocks.0.weight"]
    with pytest.raises(IncompleteModelError, match="controlnet_blocks.0.weight"):
        comfy.controlnet.load_controlnet_state_dict(tensors)


def test_it_is_no_model_and_a_model_is_no_control():
    assert not sd35.is_sd35_control(dict.fromkeys(sd3_tensors(**MODEL)))
    assert sd35.is_sd35_control(dict.fromkeys(sd35_control_tensors(1, double=True)))
    assert sd3_config(**MODEL)["qk_norm"] == "rms"
