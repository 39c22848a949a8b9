"""Choosing the device of models, and two models for one guidance."""

from types import SimpleNamespace

import pytest
import torch
from residency_models import HOST, MIB, Layers, batch, management, patcher_of
from sampling_runs import loaded

import comfy.model_management
import comfy.samplers
import comfy.sd
from comfy_extras import nodes_multigpu
from comfy_extras.guider_nodes import DualModelGuider, Guider_DualModel


@pytest.fixture
def devices():
    with management(8192 * MIB, devices=2):
        yield comfy.model_management.get_all_torch_devices()


def test_a_model_is_computed_where_it_is_asked_to_be(devices):
    base = patcher_of(Layers())
    expected = base.model(batch())
    chosen, host, unknown = (nodes_multigpu.SelectModelDeviceNode.execute(base, name).args[0] for name in ("gpu:1", "cpu", "gpu:7"))
    assert (chosen.load_device, chosen.offload_device) == (devices[1], base.offload_device)
    assert (host.load_device, host.offload_device) == (HOST, HOST) and unknown.load_device == base.load_device == devices[0]
    assert nodes_multigpu.SelectModelDeviceNode.execute(chosen.clone(), "default").args[0].load_device == devices[0]
    assert chosen.model is base.model, "nothing is read again"
    for patcher in (base, chosen, host, base):
        comfy.model_management.load_models_gpu([patcher])
        assert patcher.current_loaded_device() == patcher.load_device and patcher.loaded_size() == patcher.model_size()
        assert patcher.model(batch()).equal(expected)


def test_devices_that_are_not_here_are_named(devices, caplog):
    nodes_multigpu.SelectModelDeviceNode.execute(patcher_of(Layers()), "gpu:7")
    assert "'gpu:7'" in caplog.text
    assert nodes_multigpu.SelectModelDeviceNode.validate_inputs("gpu:7") is True
    offered = nodes_multigpu.SelectVAEDeviceNode.define_schema().inputs[1].options
    assert offered == ["default", "gpu:0", "gpu:1"]


def test_models_compute_in_a_dtype_that_the_device_knows(devices, monkeypatch):
    monkeypatch.setattr(comfy.model_management, "unet_manual_cast", lambda dtype, device: torch.float32)
    patcher = patcher_of(Layers(dtype=torch.float16))
    patcher.model.get_dtype = lambda: torch.float16
    chosen = nodes_multigpu.SelectModelDeviceNode.execute(patcher, "cpu").args[0]
    assert chosen.object_patches["manual_cast_dtype"] == torch.float32
    assert "manual_cast_dtype" not in nodes_multigpu.SelectModelDeviceNode.execute(patcher, "default").args[0].object_patches


class Whole:
    """A text encoder or autoencoder around a patcher."""

    def __init__(self, patcher):
        self.patcher, self.device = patcher, patcher.load_device

    def clone(self):
        return Whole(self.patcher.clone())


def test_text_encoders_and_autoencoders_too(devices, caplog):
    base = Whole(patcher_of(Layers()))
    assert nodes_multigpu.SelectCLIPDeviceNode.execute(base, "cpu").args[0].patcher.load_device == HOST
    vae = nodes_multigpu.SelectVAEDeviceNode.execute(base, "gpu:1").args[0]
    assert (vae.device, vae.patcher.load_device, base.device) == (devices[1], devices[1], devices[0])
    assert vae.patcher.offload_device == comfy.model_management.vae_offload_device()
    stays = nodes_multigpu.SelectVAEDeviceNode.execute(vae, "cpu").args[0]
    assert stays.device == devices[1] and "not moved to the CPU" in caplog.text
    assert nodes_multigpu.SelectVAEDeviceNode.execute(vae, "default").args[0].device == devices[0]


def sample(guider, steps=3):
    base, _, _ = loaded()
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    sigmas = comfy.samplers.calculate_sigmas(base.get_model_object("model_sampling"), "normal", steps)
    with torch.inference_mode():
        return guider.sample(noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), sigmas, disable_pbar=True, seed=2)


def test_one_model_for_both_sides_is_plain_guidance():
    base, positive, negative = loaded()
    plain = DualModelGuider.execute(base, positive, 4.0, negative=negative).args[0]
    assert type(plain) is comfy.samplers.CFGGuider
    both = DualModelGuider.execute(base, positive, 4.0, base.clone(), negative).args[0]
    assert isinstance(both, Guider_DualModel) and (sample(both) - sample(plain)).norm() / sample(plain).norm() < 1e-5
    assert sample(DualModelGuider.execute(base, positive, 1.0, base.clone(), negative).args[0]).equal(
        sample(DualModelGuider.execute(base, positive, 1.0).args[0])
    )
    assert both.model_patcher is base and both.uncond_inner is None


def test_patches_of_one_side_do_not_change_the_other():
    base, positive, negative = loaded()
    name = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_out.0.weight"
    other = base.clone()
    other.add_patches({name: (None,)}, 0.0, 3.0)
    guider = DualModelGuider.execute(base, positive, 4.0, other, negative).args[0]
    assert guider.uncond_model_patcher.model is not base.model
    mixed = sample(guider)
    assert not torch.allclose(mixed, sample(DualModelGuider.execute(base, positive, 4.0, negative=negative).args[0]), atol=1e-4)
    assert not torch.allclose(mixed, sample(DualModelGuider.execute(other, positive, 4.0, negative=negative).args[0]), atol=1e-4)


def test_a_side_without_text_has_no_context():
    base, positive, _ = loaded()
    guider = DualModelGuider.execute(base, positive, 4.0, SimpleNamespace(model=None)).args[0]
    assert "cross_attn" not in guider.original_conds["negative"][0]
