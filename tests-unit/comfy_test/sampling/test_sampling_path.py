"""The whole way from conditioning to latent, with a small random Stable Diffusion model."""

from types import SimpleNamespace

import pytest
import torch
from sampling_runs import loaded, run
from sampling_toys import GaussianModel

import comfy.k_diffusion.sampling
import comfy.patcher_extension
import comfy.sample
import comfy.samplers
from comfy.interruption import InterruptProcessingException, interrupt_flag


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_sampling_is_repeatable_and_follows_the_seed(family):
    first = run(family=family)
    assert first.isfinite().all()
    assert first.std() > 0.1
    assert torch.equal(first, run(family=family))
    assert not torch.allclose(first, run(family=family, seed=4), atol=0.1)


def test_two_halves_of_the_steps_make_the_whole():
    whole = run(steps=4)
    half = run(steps=4, last_step=2)
    rest = run(steps=4, start_step=2, latent=half, noise=torch.zeros_like(half))
    assert torch.allclose(whole, rest, atol=1e-4)


def test_force_full_denoise_ends_without_noise():
    noisy, clean = run(steps=4, last_step=2), run(steps=4, last_step=2, force_full_denoise=True)
    assert not torch.allclose(noisy, clean, atol=1e-2)
    assert torch.equal(run(steps=4, start_step=4, latent=clean), clean)


def test_less_denoise_stays_closer_to_the_latent():
    latent = run(seed=8) * 0.5
    near, far = run(latent=latent, denoise=0.2), run(latent=latent, denoise=0.9)
    assert (near - latent).abs().mean() < (far - latent).abs().mean()
    assert torch.equal(run(latent=latent, denoise=0.0), latent)


def test_what_the_mask_keeps_comes_back():
    latent = run(seed=8) * 0.5
    mask = torch.zeros(1, 64, 64)
    mask[:, :, 32:] = 1
    out = run(latent=latent, noise_mask=mask)
    assert torch.allclose(out[..., :4], latent[..., :4], atol=1e-5)
    assert not torch.allclose(out[..., 4:], latent[..., 4:], atol=0.1)


def test_callbacks_see_every_step():
    seen = []
    run(steps=3, callback=lambda step, x0, x, total: seen.append((step, tuple(x0.shape), total)))
    assert seen == [(0, (1, 4, 8, 8), 3), (1, (1, 4, 8, 8), 3), (2, (1, 4, 8, 8), 3)]


def test_an_interrupt_ends_the_sampling_and_leaves_the_model_usable():
    reference = run()

    def stop(step, *rest):
        interrupt_flag.set()

    with pytest.raises(InterruptProcessingException):
        run(callback=stop)
    assert torch.equal(run(), reference)


def test_the_model_is_patched_for_the_run_only():
    base = loaded()[0]
    patcher = base.clone()
    patcher.set_model_sampler_post_cfg_function(lambda arguments: arguments["denoised"] * 0.5)
    assert not torch.allclose(run(patcher), run(), atol=1e-3)
    assert torch.equal(run(), run(base))


def test_wrappers_are_called_from_the_outside_in():
    kinds = comfy.patcher_extension.WrappersMP
    order = []
    patcher = loaded()[0].clone()
    for kind in (
        kinds.OUTER_SAMPLE,
        kinds.PREPARE_SAMPLING,
        kinds.SAMPLER_SAMPLE,
        kinds.PREDICT_NOISE,
        kinds.CALC_COND_BATCH,
        kinds.APPLY_MODEL,
        kinds.DIFFUSION_MODEL,
    ):

        def wrapper(executor, *arguments, kind=kind, **named):
            order.append(kind)
            return executor(*arguments, **named)

        patcher.add_wrapper(kind, wrapper)
    assert torch.equal(run(patcher, steps=1), run(steps=1))
    assert order == [
        kinds.OUTER_SAMPLE,
        kinds.PREPARE_SAMPLING,
        kinds.SAMPLER_SAMPLE,
        kinds.PREDICT_NOISE,
        kinds.CALC_COND_BATCH,
        kinds.APPLY_MODEL,
        kinds.DIFFUSION_MODEL,
    ]


def test_the_network_is_told_the_whole_schedule():
    seen = []
    patcher = loaded()[0].clone()

    def wrapper(apply_model, call):
        seen.append(call["c"]["transformer_options"]["sample_sigmas"])
        return apply_model(call["input"], call["timestep"], **call["c"])

    patcher.set_model_unet_function_wrapper(wrapper)
    run(patcher, steps=2)
    expected = comfy.samplers.calculate_sigmas(patcher.get_model_object("model_sampling"), "karras", 2)
    assert all(torch.equal(sigmas, expected) for sigmas in seen)


def test_a_guider_can_be_used_again():
    patcher, positive, negative = loaded()
    guider = comfy.samplers.CFGGuider(patcher)
    guider.set_conds(positive, negative)
    guider.set_cfg(4.0)
    sigmas = comfy.samplers.calculate_sigmas(patcher.get_model_object("model_sampling"), "karras", 3)
    latent = torch.zeros(1, 4, 8, 8)
    noise = comfy.sample.prepare_noise(latent, 3)
    sampler = comfy.samplers.sampler_object("euler")
    with torch.inference_mode():
        results = [guider.sample(noise, latent, sampler, sigmas, disable_pbar=True, seed=3) for _ in range(2)]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], run())
    assert not hasattr(guider, "inner_model")


def test_no_sigmas_return_the_latent():
    guider = comfy.samplers.CFGGuider(loaded()[0])
    latent = torch.ones(1, 4, 8, 8)
    assert guider.sample(latent, latent, None, torch.FloatTensor([])) is latent


def test_a_replaced_sampling_function_is_used(monkeypatch):
    def constant(model, x, timestep, uncond, cond, cond_scale, model_options=None, seed=None):
        return torch.zeros_like(x)

    monkeypatch.setattr(comfy.samplers, "sampling_function", constant)
    assert run().abs().max() < 1e-4


def test_empty_latents_take_the_models_channels_and_scale():
    patcher = loaded()[0]
    fixed = comfy.sample.fix_empty_latent_channels(patcher, torch.zeros(1, 16, 4, 4), downscale_ratio_spacial=16)
    assert fixed.shape == (1, 4, 8, 8)
    full = torch.ones(1, 4, 4, 4)
    assert comfy.sample.fix_empty_latent_channels(patcher, full, downscale_ratio_spacial=16) is full


class SilentTorch:
    """torch, but whose ``randn_like`` is zero."""

    def __getattr__(self, name):
        return getattr(torch, name)

    def randn_like(self, x):
        return torch.zeros_like(x)


@pytest.mark.parametrize(
    ("sampler", "name", "replacement", "options"),
    [
        ("euler_ancestral", "default_noise_sampler", lambda x, seed=None: lambda *_: torch.zeros_like(x), {}),
        ("lcm", "default_noise_sampler", lambda x, seed=None: lambda *_: torch.zeros_like(x), {}),
        ("dpmpp_2s_ancestral", "default_noise_sampler", lambda x, seed=None: lambda *_: torch.zeros_like(x), {}),
        ("dpmpp_sde", "BrownianTreeNoiseSampler", lambda x, *_, **__: lambda *_: torch.zeros_like(x), {}),
        ("euler", "torch", SilentTorch(), {"s_churn": 2.0}),
    ],
)
def test_noise_that_packs_replace_beside_the_samplers_is_used(sampler, name, replacement, options, monkeypatch):
    def sample():
        model, x = GaussianModel(), torch.ones(1, 4, 4, 4)
        guider = type("Guider", (SimpleNamespace,), {"__call__": lambda self, x, sigma, **_: model(x, sigma)})(**vars(model.inner_model))
        return comfy.samplers.ksampler(sampler, options).sample(
            guider, torch.tensor([2.0, 1.0, 0.5]), {"seed": 3}, None, x, torch.zeros_like(x), disable_pbar=True
        )

    noisy = sample()
    monkeypatch.setattr(comfy.k_diffusion.sampling, name, replacement)
    silent = sample()
    assert not torch.allclose(noisy, silent, atol=1e-3)
    assert float(silent.std()) < 1e-6
