import asyncio
import inspect
import math
from types import SimpleNamespace

import pytest
import torch

import comfy.latent_formats
import comfy.model_sampling
import comfy.sample
import comfy.samplers
import nodes
from comfy.k_diffusion import sampling
from comfy_extras import core_sampling
from comfy_extras import nodes_custom_sampler as custom


class Discrete(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
    pass


class Model:
    """A patcher whose latents are doubled on the way out of the sampler."""

    load_device = torch.device("cpu")

    def __init__(self):
        self.model_options = {}
        self.wrappers = []
        self.objects = {
            "model_sampling": Discrete(),
            "latent_format": comfy.latent_formats.SD15(),
            "process_latent_in": lambda latent: latent * 0.5,
            "process_latent_out": lambda latent: latent * 2,
        }
        self.model = SimpleNamespace(latent_format=self.objects["latent_format"], process_latent_out=lambda latent: latent * 2)

    def get_model_object(self, name):
        return self.objects[name]

    def clone(self):
        return Model()

    def add_wrapper(self, kind, wrapper):
        self.wrappers.append((kind, wrapper))


LATENT = {"samples": torch.ones(1, 4, 2, 2), "downscale_ratio_spacial": 8, "kept": 1}
SIGMAS = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.0])


def first(output):
    return output[0]


@pytest.fixture
def sampled(monkeypatch):
    """Replaces sampling; returns the arguments it was called with."""
    calls = []

    def sample(model, noise, *arguments, callback, **named):
        calls.append({"noise": noise, "arguments": arguments, **named})
        callback(0, torch.full((1, 4, 2, 2), 3.0), torch.zeros(1), 1)
        return torch.full((1, 4, 2, 2), 5.0)

    monkeypatch.setattr(comfy.sample, "sample", sample)
    monkeypatch.setattr(comfy.sample, "sample_custom", sample)
    return calls


def test_ksampler_draws_noise_from_the_seed_and_keeps_the_latents_entries(sampled):
    latent = {**LATENT, "batch_index": [2], "noise_mask": "mask"}
    (out,) = nodes.KSampler().sample(Model(), 7, 4, 6.0, "euler", "karras", "p", "n", latent, denoise=0.5)
    assert torch.equal(sampled[0]["noise"], comfy.sample.prepare_noise(LATENT["samples"], 7, [2]))
    assert sampled[0]["arguments"][:6] == (4, 6.0, "euler", "karras", "p", "n")
    assert (sampled[0]["denoise"], sampled[0]["seed"], sampled[0]["noise_mask"]) == (0.5, 7, "mask")
    assert (out["samples"] == 5).all()
    assert "downscale_ratio_spacial" not in out
    assert out["kept"] == 1


def test_advanced_ksampler_turns_its_switches_into_arguments(sampled):
    arguments = (Model(), "disable", 7, 4, 6.0, "euler", "karras", "p", "n", LATENT, 1, 3)
    nodes.KSamplerAdvanced().sample(*arguments, "enable")
    nodes.KSamplerAdvanced().sample(*arguments, "disable")
    assert not sampled[0]["noise"].any()
    assert (sampled[0]["disable_noise"], sampled[0]["start_step"], sampled[0]["last_step"]) == (True, 1, 3)
    assert [call["force_full_denoise"] for call in sampled] == [False, True]


def test_a_replaced_common_ksampler_is_used(monkeypatch):
    monkeypatch.setattr(nodes, "common_ksampler", lambda *arguments, **named: ("a pack's",))
    assert nodes.KSampler().sample(Model(), 7, 4, 6.0, "euler", "karras", "p", "n", LATENT) == ("a pack's",)
    assert core_sampling.common_ksampler is not nodes.common_ksampler


def test_the_sampler_lists_are_the_live_ones(monkeypatch):
    monkeypatch.setattr(comfy.samplers.KSampler, "SAMPLERS", ["only"])
    assert nodes.KSampler.INPUT_TYPES()["required"]["sampler_name"][0] == ["only"]


@pytest.mark.parametrize("adds_noise", [True, False])
def test_custom_sampling_returns_the_last_picture_too(sampled, adds_noise):
    out, denoised = custom.SamplerCustom.execute(Model(), adds_noise, 7, 6.0, "p", "n", "sampler", SIGMAS, LATENT)
    assert bool(sampled[0]["noise"].any()) == adds_noise
    assert (out["samples"] == 5).all()
    assert (denoised["samples"] == 6).all()


def test_advanced_custom_sampling_runs_the_guider():
    calls = []

    def sample(noise, latent, sampler, sigmas, **named):
        calls.append((noise, sampler, named["seed"], named["denoise_mask"]))
        return latent + 1

    guider = SimpleNamespace(model_patcher=Model(), sample=sample)
    noise = first(custom.RandomNoise.execute(9))
    out, denoised = custom.SamplerCustomAdvanced.execute(noise, guider, "sampler", SIGMAS, {**LATENT, "noise_mask": "mask"})
    assert calls[0][1:] == ("sampler", 9, "mask")
    assert torch.equal(calls[0][0], comfy.sample.prepare_noise(LATENT["samples"], 9))
    assert (out["samples"] == 2).all()
    assert denoised is out


def test_no_noise_is_zero_on_the_cpu():
    noise = first(custom.DisableNoise.execute())
    assert noise.seed == 0
    assert not noise.generate_noise(LATENT).any()


def test_added_noise_is_that_of_the_part_of_the_schedule():
    noise = SimpleNamespace(generate_noise=lambda latent: torch.full((1, 4, 2, 2), 3.0))
    out = first(custom.AddNoise.execute(Model(), noise, SIGMAS[:2], LATENT))
    assert (out["samples"] == ((8 - 4) * 3 + 0.5) * 2).all()
    assert first(custom.AddNoise.execute(Model(), noise, SIGMAS[:0], LATENT)) is LATENT
    assert (first(custom.AddNoise.execute(Model(), noise, SIGMAS[1:2], LATENT))["samples"] == (4 * 3 + 0.5) * 2).all()


def test_basic_scheduler_shortens_with_denoise():
    longer = comfy.samplers.calculate_sigmas(Discrete(), "karras", 8)
    assert first(custom.BasicScheduler.execute(Model(), "karras", 4, 0.5)).tolist() == longer[-5:].tolist()
    assert len(first(custom.BasicScheduler.execute(Model(), "karras", 4, 0.0))) == 0


def test_schedulers_with_settings_are_the_named_functions():
    pairs = [
        (custom.KarrasScheduler.execute(5, 10.0, 0.1, 5.0), sampling.get_sigmas_karras(5, 0.1, 10.0, 5.0)),
        (custom.ExponentialScheduler.execute(5, 10.0, 0.1), sampling.get_sigmas_exponential(5, 0.1, 10.0)),
        (custom.PolyexponentialScheduler.execute(5, 10.0, 0.1, 2.0), sampling.get_sigmas_polyexponential(5, 0.1, 10.0, 2.0)),
        (custom.LaplaceScheduler.execute(5, 10.0, 0.1, 0.2, 0.4), sampling.get_sigmas_laplace(5, 0.1, 10.0, 0.2, 0.4)),
        (custom.VPScheduler.execute(5, 18.0, 0.2, 0.01), sampling.get_sigmas_vp(5, 18.0, 0.2, 0.01)),
        (custom.BetaSamplingScheduler.execute(Model(), 5, 0.5, 0.7), comfy.samplers.beta_scheduler(Discrete(), 5, 0.5, 0.7)),
    ]
    for output, expected in pairs:
        assert torch.equal(first(output), expected)


def test_turbo_levels_are_every_hundredth_step():
    table = Discrete().sigmas
    sigmas = first(custom.SDTurboScheduler.execute(Model(), 2, 1.0))
    assert sigmas.tolist() == pytest.approx([table[999].item(), table[899].item(), 0.0])
    assert first(custom.SDTurboScheduler.execute(Model(), 1, 0.5))[0].item() == pytest.approx(table[499].item())


def test_schedules_are_cut_turned_and_changed():
    high, low = custom.SplitSigmas.execute(SIGMAS, 1)
    assert (high.tolist(), low.tolist()) == ([8.0, 4.0], [4.0, 2.0, 1.0, 0.0])
    high, low = custom.SplitSigmasDenoise.execute(SIGMAS, 0.25)
    assert (high.tolist(), low.tolist()) == ([8.0, 4.0, 2.0, 1.0], [1.0, 0.0])
    high, low = custom.SplitSigmasDenoise.execute(SIGMAS, 0.0)
    assert (high.tolist(), low.tolist()) == (SIGMAS.tolist(), [0.0])
    assert first(custom.FlipSigmas.execute(SIGMAS)).tolist() == pytest.approx([0.0001, 1.0, 2.0, 4.0, 8.0])
    assert first(custom.FlipSigmas.execute(SIGMAS[:0])).tolist() == []
    assert first(custom.SetFirstSigma.execute(SIGMAS, 9.0)).tolist() == [9.0, 4.0, 2.0, 1.0, 0.0]
    assert SIGMAS[0] == 8.0


@pytest.mark.parametrize(
    ("spacing", "middle"), [("linear", 3.0), ("cosine", 4 - 2 * math.sin(math.pi / 4)), ("sine", 4 - 2 * (1 - math.cos(math.pi / 4)))]
)
def test_steps_between_two_levels_are_divided(spacing, middle):
    assert first(custom.ExtendIntermediateSigmas.execute(SIGMAS, 2, 4.0, 3.0, spacing)).tolist() == pytest.approx(
        [8.0, 4.0, middle, 2.0, 1.0, 0.0]
    )
    assert len(first(custom.ExtendIntermediateSigmas.execute(SIGMAS, 3, -1.0, 0.0, spacing))) == 13


def test_percents_become_levels():
    assert first(custom.SamplingPercentToSigma.execute(Model(), 0.5, False)) == Discrete().percent_to_sigma(0.5)
    assert first(custom.SamplingPercentToSigma.execute(Model(), 0.0, False)) > 1e8
    assert first(custom.SamplingPercentToSigma.execute(Model(), 0.0, True)) == Discrete().sigma_max.item()
    assert first(custom.SamplingPercentToSigma.execute(Model(), 1.0, True)) == Discrete().sigma_min.item()


def test_levels_can_be_written_as_text():
    assert first(custom.ManualSigmas.execute("14.6, 3;-1 .5")).tolist() == pytest.approx([14.6, 3.0, -1.0, 0.5])


def test_sampler_nodes_choose_function_and_options():
    sampler = first(custom.SamplerDPMPP_2M_SDE.execute("heun", 0.5, 0.9, "cpu"))
    assert sampler.sampler_function is sampling.sample_dpmpp_2m_sde
    assert sampler.extra_options == {"eta": 0.5, "s_noise": 0.9, "solver_type": "heun"}
    for output, function in (
        (custom.SamplerDPMPP_SDE.execute(1.0, 1.0, 0.5, "gpu"), sampling.sample_dpmpp_sde_gpu),
        (custom.SamplerDPMPP_3M_SDE.execute(1.0, 1.0, "gpu"), sampling.sample_dpmpp_3m_sde_gpu),
        (custom.SamplerDPMPP_2S_Ancestral.execute(1.0, 1.0), sampling.sample_dpmpp_2s_ancestral),
        (custom.SamplerEulerAncestral.execute(1.0, 1.0), sampling.sample_euler_ancestral),
        (custom.SamplerLMS.execute(3), sampling.sample_lms),
        (custom.KSamplerSelect.execute("heun"), sampling.sample_heun),
        (custom.KSamplerSelect.execute("er_sde"), sampling.sample_er_sde),
        (custom.SamplerEulerAncestralCFGPP.execute(1.0, 1.0), sampling.sample_euler_ancestral_cfg_pp),
        (custom.SamplerSEEDS2.execute("phi_2", 1.0, 1.0, 0.5), sampling.sample_seeds_2),
    ):
        assert first(output).sampler_function is function


def test_er_sde_node_gives_the_scaler_its_strength_and_the_ode_no_noise():
    sampler = first(custom.SamplerER_SDE.execute("Reverse-time SDE", 2, 0.5, 0.9))
    assert (sampler.sampler_function, sampler.extra_options["max_stage"], sampler.extra_options["s_noise"]) == (
        sampling.sample_er_sde,
        2,
        0.9,
    )
    assert float(sampler.extra_options["noise_scaler"](torch.tensor(4.0))) == 4.0**1.5
    for output in (custom.SamplerER_SDE.execute("ODE", 3, 1.0, 1.0), custom.SamplerER_SDE.execute("ER-SDE", 3, 0.0, 1.0)):
        options = first(output).extra_options
        assert (options["s_noise"], float(options["noise_scaler"](torch.tensor(4.0)))) == (0.0, 4.0)


def test_sa_solver_node_turns_shares_into_sigmas():
    sampler = first(custom.SamplerSASolver.execute(Model(), 0.6, 0.2, 0.8, 1.0, 3, 4, True, False))
    tau, levels = sampler.extra_options.pop("tau_func"), [Discrete().percent_to_sigma(share) for share in (0.1, 0.5, 0.9)]
    assert [tau(level) for level in levels] == [0.0, 0.6, 0.0]
    assert sampler.sampler_function is sampling.sample_sa_solver
    assert sampler.extra_options == {"s_noise": 1.0, "predictor_order": 3, "corrector_order": 4, "use_pece": True, "simple_order_2": False}


def test_adaptive_solver_node_passes_all_its_settings():
    schema = custom.SamplerDPMAdaptative.define_schema()
    settings = {each.id: each.default for each in schema.inputs}
    taken = inspect.signature(sampling.sample_dpm_adaptive).parameters
    assert settings == {name: taken[name].default for name in settings}
    assert first(custom.SamplerDPMAdaptative.execute(**settings)).extra_options == settings


CONDITIONING = [[torch.zeros(1, 1, 1), {"name": "x"}]]


def test_guiders_hold_model_conditioning_and_scale():
    guider = first(custom.CFGGuider.execute(Model(), CONDITIONING, CONDITIONING, 3.0))
    assert (guider.cfg, sorted(guider.original_conds)) == (3.0, ["negative", "positive"])
    assert sorted(first(custom.BasicGuider.execute(Model(), CONDITIONING)).original_conds) == ["positive"]


@pytest.mark.parametrize(
    ("style", "cfgs", "expected", "asked"),
    [
        ("regular", (2.0, 3.0), (1 + 3 * (4 - 1)) + 2 * (10 - 4), "nmp"),
        ("nested", (2.0, 3.0), 1 + 3 * ((4 + 2 * (10 - 4)) - 1), "nmp"),
        ("regular", (2.0, 1.0), 4 + 2 * (10 - 4), "-mp"),
        ("regular", (1.0, 1.0), 10, "--p"),
    ],
)
def test_dual_guidance_mixes_three_sides(monkeypatch, style, cfgs, expected, asked):
    guider = first(custom.DualCFGGuider.execute(Model(), CONDITIONING, CONDITIONING, CONDITIONING, *cfgs, style))
    guider.conds = {"negative": "n", "middle": "m", "positive": "p"}
    guider.inner_model = None
    values = {"n": 1.0, "m": 4.0, "p": 10.0}
    seen = []

    def answer(model, conds, x, timestep, options):
        seen.append("".join(cond or "-" for cond in conds))
        return [torch.tensor(values.get(cond, 0.0)) for cond in conds]

    monkeypatch.setattr(comfy.samplers, "calc_cond_batch", answer)
    assert guider.predict_noise(torch.tensor(0.0), torch.tensor([1.0])).item() == expected
    assert seen == [asked]


def test_the_scale_can_differ_in_a_range_of_the_sampling():
    ((kind, wrapper),) = first(custom.CFGOverride.execute(Model(), 1.5, 0.2, 0.8)).wrappers
    guider = SimpleNamespace(cfg=7.0)

    class Executor:
        class_obj = guider

        def __call__(self, x, sigma):
            return guider.cfg

    inside, outside = Discrete().percent_to_sigma(0.5), Discrete().percent_to_sigma(0.1)
    assert kind == "predict_noise"
    assert wrapper(Executor(), None, torch.tensor([inside])) == 1.5
    assert wrapper(Executor(), None, torch.tensor([outside])) == 7.0
    assert guider.cfg == 7.0


def test_every_node_of_the_extension_has_a_schema():
    listed = asyncio.run(asyncio.run(custom.comfy_entrypoint()).get_node_list())
    names = [node.GET_SCHEMA().node_id for node in listed]
    assert len(set(names)) == len(names)
    assert {"SamplerCustom", "SamplerCustomAdvanced", "BasicScheduler", "KSamplerSelect", "RandomNoise", "CFGGuider"} <= set(names)
