from types import SimpleNamespace

import pytest
import torch
from sampling_toys import DiscreteEps

import comfy.samplers
from comfy.interruption import InterruptProcessingException, interrupt_flag

X, SIGMA = torch.full((1, 4, 2, 2), 10.0), torch.tensor([2.0])


def ones(value):
    return torch.full((1, 4, 2, 2), float(value))


@pytest.fixture
def two_sides(monkeypatch):
    """Makes the model answer 3 for cond and 1 for uncond; returns the list of what it was asked."""
    asked = []

    def answer(model, conds, x, timestep, options):
        asked.append(conds)
        return [torch.zeros_like(x) if cond is None else ones(cond) for cond in conds]

    monkeypatch.setattr(comfy.samplers, "calc_cond_batch", answer)
    return asked


def guided(scale, options=None):
    return comfy.samplers.sampling_function("model", X, SIGMA, 1, 3, scale, model_options=options or {})


def test_guidance_extrapolates_from_the_unconditioned_side(two_sides):
    assert torch.equal(guided(4.0), ones(1 + 4 * 2))


def test_a_scale_of_one_leaves_the_other_side_out(two_sides):
    assert torch.equal(guided(1.0), ones(3))
    assert two_sides == [[3, None]]
    guided(1.0, {"disable_cfg1_optimization": True})
    assert two_sides[-1] == [3, 1]


def test_a_cfg_function_gets_noise_parts_and_replaces_guidance(two_sides):
    def cfg(arguments):
        assert torch.equal(arguments["cond"], X - 3)
        assert torch.equal(arguments["uncond"], X - 1)
        assert torch.equal(arguments["cond_denoised"], ones(3))
        assert (arguments["cond_scale"], arguments["model"], arguments["input_cond"], arguments["input_uncond"]) == (4.0, "model", 3, 1)
        return ones(2)

    assert torch.equal(guided(4.0, {"sampler_cfg_function": cfg}), ones(8))


def test_pre_and_post_functions_act_in_order(two_sides):
    def pre(arguments):
        return [out + 1 for out in arguments["conds_out"]]

    def double(arguments):
        return arguments["denoised"] * 2

    def less_one(arguments):
        return arguments["denoised"] - 1

    options = {"sampler_pre_cfg_function": [pre], "sampler_post_cfg_function": [double, less_one]}
    assert torch.equal(guided(4.0, options), ones((2 + 4 * 2) * 2 - 1))


def test_a_function_can_replace_the_batch(two_sides):
    options = {"sampler_calc_cond_batch_function": lambda arguments: [ones(5), ones(5)]}
    assert torch.equal(guided(4.0, options), ones(5))
    assert two_sides == []


def inpainting(answer=3.0):
    calls = []

    def model(x, sigma, model_options, seed):
        calls.append(x)
        return torch.full_like(x, answer)

    model.inner_model = SimpleNamespace(scale_latent_inpaint=lambda x, sigma, noise, latent_image, **_: latent_image + sigma * noise)
    wrapped = comfy.samplers.KSamplerX0Inpaint(model, torch.tensor([2.0, 0.0]))
    wrapped.noise, wrapped.latent_image = ones(0.5), ones(7)
    return wrapped, calls


def test_the_kept_part_of_a_masked_latent_is_the_original_with_noise():
    wrapped, calls = inpainting()
    mask = torch.zeros(1, 1, 2, 2)
    mask[..., 0] = 1
    out = wrapped(X, SIGMA, mask)
    assert (calls[0][..., 0] == 10).all()
    assert (calls[0][..., 1] == 7 + 2 * 0.5).all()
    assert (out[..., 0] == 3).all()
    assert (out[..., 1] == 7).all()


def test_a_mask_function_may_change_the_mask():
    wrapped, _ = inpainting()

    def nothing(sigma, mask, extra_options):
        assert extra_options["sigmas"].tolist() == [2.0, 0.0]
        return mask * 0

    assert (wrapped(X, SIGMA, torch.ones(1, 1, 2, 2), model_options={"denoise_mask_function": nothing}) == 7).all()


def test_an_interrupt_stops_before_the_next_model_call():
    wrapped, calls = inpainting()
    interrupt_flag.set()
    try:
        with pytest.raises(InterruptProcessingException):
            wrapped(X, SIGMA, None)
    finally:
        interrupt_flag.set(False)
    assert calls == []
    assert (wrapped(X, SIGMA, None) == 3).all()


def test_max_denoise_means_the_highest_level_or_above():
    wrap = SimpleNamespace(inner_model=SimpleNamespace(model_sampling=DiscreteEps()))
    highest = wrap.inner_model.model_sampling.sigma_max.item()
    sampler = comfy.samplers.Sampler()
    assert sampler.max_denoise(wrap, torch.tensor([highest * (1 - 1e-6), 0.0]))
    assert sampler.max_denoise(wrap, torch.tensor([highest + 1, 0.0]))
    assert not sampler.max_denoise(wrap, torch.tensor([highest * 0.99, 0.0]))


def test_ddim_keeps_a_masked_latent_with_noise_of_its_own():
    noises = []

    def function(model, x, sigmas, extra_args, callback, disable):
        noises.append(model.noise)
        return x

    wrap = SimpleNamespace(inner_model=SimpleNamespace(model_sampling=DiscreteEps()))
    sampler = comfy.samplers.KSAMPLER(function, inpaint_options={"random": True})
    sampler.sample(wrap, torch.tensor([2.0, 0.0]), {"seed": 9}, None, ones(1), ones(0))
    assert torch.equal(noises[0], torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(10)))
    assert comfy.samplers.sampler_object("ddim").inpaint_options == {"random": True}


def test_the_callback_gets_step_picture_latent_and_total():
    seen = []

    def function(model, x, sigmas, extra_args, callback, disable, gain):
        callback({"i": 0, "denoised": "picture", "x": "latent"})
        return x * gain

    wrap = SimpleNamespace(inner_model=SimpleNamespace(model_sampling=DiscreteEps()))
    sampler = comfy.samplers.KSAMPLER(function, {"gain": 2.0})
    out = sampler.sample(wrap, torch.tensor([2.0, 1.0, 0.0]), {}, lambda *args: seen.append(args), ones(1), ones(3))
    assert seen == [(0, "picture", "latent", 2)]
    assert torch.equal(out, ones((3 + 2.0 * 1) * 2))


def test_what_a_pack_puts_in_place_of_names_of_the_module_is_used(two_sides, monkeypatch):
    monkeypatch.setattr(comfy.samplers, "cfg_function", lambda *args, **kwargs: "guided")
    assert guided(4.0) == "guided"

    class Kept(Exception):
        pass

    def refuse(*args):
        raise Kept

    monkeypatch.setattr(comfy.samplers, "KSamplerX0Inpaint", refuse)
    with pytest.raises(Kept):
        comfy.samplers.ksampler("euler").sample(None, SIGMA, {}, None, X)


def test_the_table_of_schedulers_is_the_one_packs_add_to(monkeypatch):
    handler = comfy.samplers.SchedulerHandler(lambda sampling, steps: (sampling, steps))
    monkeypatch.setitem(comfy.samplers.SCHEDULER_HANDLERS, "flat", handler)
    assert comfy.samplers.calculate_sigmas("table", "flat", 3) == ("table", 3)
    assert comfy.samplers.KSampler.SCHEDULERS is comfy.samplers.SCHEDULER_NAMES
