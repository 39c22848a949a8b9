"""Wan's videos that are made some frames at a time: what files say so, what frames see, pictures to begin with, guidance, nodes, errors."""

import pytest
import torch
from wan_files import wan_file

import comfy.samplers
import comfy.sd
from comfy.dit.models.wan import WAN21_CausalAR
from comfy.dit.wan import WAN21_CausalAR_T2V
from comfy.ldm.wan.ar_model import CausalWanModel, FramesBefore
from comfy_extras.nodes_ar_video import ARVideoI2V, EmptyARVideoLatent, SamplerARVideo
from comfy_extras.nodes_custom_sampler import CFGGuider

SIDES = (6, 8)
LEVELS = torch.tensor([1.0, 0.7, 0.0])


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return comfy.sd.load_diffusion_model(wan_file(tmp_path_factory.mktemp("wan") / "causal.safetensors", "causal"))


def numbers(*shape, seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def told(seed):
    return [[numbers(1, 5, 64, seed=seed), {}]]


def sampled(model, frames=4, at_a_time=1, cfg=1.0, positive=1, noise=None, seed=5, calls=None, **more):
    (sampler,) = SamplerARVideo.execute(at_a_time).args
    (guider,) = CFGGuider.execute(model, told(positive), told(2), cfg).args
    noise = numbers(1, 16, frames, *SIDES) if noise is None else noise
    return guider.sample(noise, torch.zeros_like(noise), sampler, LEVELS, callback=calls, disable_pbar=True, seed=seed, **more)


def test_the_files_metadata_says_that_it_makes_frames_after_frames(model, tmp_path):
    assert isinstance(model.model, WAN21_CausalAR) and isinstance(model.model.diffusion_model, CausalWanModel)
    assert isinstance(model.model.model_config, WAN21_CausalAR_T2V) and "causal_ar" not in model.model.model_config.unet_config
    assert model.model.model_sampling.shift == 5.0
    plain = comfy.sd.load_diffusion_model(wan_file(tmp_path / "plain.safetensors", "t2v"))
    assert not isinstance(plain.model, WAN21_CausalAR)
    with pytest.raises(ValueError, match="needs a model that makes frames after frames"):
        sampled(plain)


def test_frames_see_those_before_and_not_those_behind(model):
    noise = numbers(1, 16, 4, *SIDES)
    whole = sampled(model, noise=noise)
    assert torch.isfinite(whole).all() and whole.shape == noise.shape
    late, early = noise.clone(), noise.clone()
    late[:, :, 3] += 1.0
    early[:, :, 0] += 1.0
    changed = [(sampled(model, noise=one) - whole).abs().amax(dim=(0, 1, 3, 4)) > 1e-5 for one in (late, early)]
    assert changed[0].tolist() == [False, False, False, True] and changed[1].all()


def test_a_run_of_frames_is_what_the_network_makes_of_all_frames_so_far(model):
    """The keys and values that are kept stand for the frames themselves: without them the last frames see nothing else."""
    network = model.model.diffusion_model
    text, frames = numbers(1, 5, 64), numbers(1, 16, 3, *SIDES)
    before = FramesBefore(3)
    times = torch.zeros(1)
    found = []
    for place in range(3):
        found.append(network(frames[:, :, place : place + 1], times, text, transformer_options={"ar_state": before}))
        before.keep(1)
    alone = network(frames[:, :, 2:], times, text)
    assert not torch.allclose(found[2], alone, atol=1e-3)
    twice = FramesBefore(3)
    first = network(frames[:, :, :2], times, text, transformer_options={"ar_state": twice})
    torch.testing.assert_close(network(frames[:, :, :2], times, text), first, rtol=1e-4, atol=1e-5)
    again = network(frames[:, :, :2], times, text, transformer_options={"ar_state": twice})  # was not kept, so it is made anew
    assert torch.equal(first, again)


@pytest.mark.parametrize("at_a_time", [2, 64])
def test_several_frames_at_a_time_and_a_shorter_last_run(model, at_a_time):
    made = sampled(model, frames=5, at_a_time=at_a_time)
    assert torch.isfinite(made).all() and (made.std(dim=(0, 1, 3, 4)) > 0.1).all()
    assert not torch.allclose(made, sampled(model, frames=5), atol=1e-3)


def test_both_sides_of_guidance_remember_frames_of_their_own(model):
    plain, guided = sampled(model, frames=2), sampled(model, frames=2, cfg=3.0)
    assert not torch.allclose(guided, plain, atol=1e-3) and torch.isfinite(guided).all()
    torch.testing.assert_close(sampled(model, frames=2, cfg=1.0 + 1e-7), plain, rtol=1e-3, atol=1e-4)
    pair = sampled(model, noise=numbers(1, 16, 2, *SIDES).repeat(2, 1, 1, 1, 1), cfg=3.0)
    assert pair.shape[0] == 2 and torch.isfinite(pair).all()


def test_seeds_decide_and_steps_are_reported(model):
    steps = []
    first = sampled(model, calls=lambda step, denoised, x, total: steps.append((step, total, denoised.shape[2])))
    assert torch.equal(sampled(model), first) and not torch.equal(sampled(model, seed=6), first)
    assert steps == [(0, 2, 1)] * 4 + [(1, 2, 1)] * 4
    assert "ar_state" not in model.model_options["transformer_options"]


class Autoencoder:
    def encode(self, pictures):
        means = torch.nn.functional.avg_pool2d(pictures.movedim(-1, 1), 8).mean(dim=1, keepdim=True)
        return means.repeat(1, 16, 1, 1).unsqueeze(2)


def test_a_video_begins_with_its_picture(model):
    picture = torch.rand(2, 40, 50, 4, generator=torch.Generator().manual_seed(1))
    patched, latent = ARVideoI2V.execute(model, Autoencoder(), picture, 64, 48, 13, 1).args
    assert latent["samples"].shape == (1, 16, 4, 6, 8)
    made = sampled(patched)
    first = patched.model_options["transformer_options"]["ar_config"]["initial_latent"]
    torch.testing.assert_close(made[:, :, :1], first, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(made[:, :, 1:], sampled(model)[:, :, 1:], atol=1e-3)
    assert "ar_config" not in model.model_options["transformer_options"]
    assert sampled(patched, noise=numbers(2, 16, 4, *SIDES)).shape[0] == 2


def test_latents_of_videos_and_errors_for_pictures(model):
    (latent,) = EmptyARVideoLatent.execute(64, 48, 9, 2).args
    assert latent["samples"].shape == (2, 16, 3, 6, 8) and not latent["samples"].any()
    with pytest.raises(ValueError, match="the latent has 4 axes"):
        comfy.samplers.ksampler("ar_video").sampler_function(None, numbers(1, 16, 6, 8), LEVELS)
