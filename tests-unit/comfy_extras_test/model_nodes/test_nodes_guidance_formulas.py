"""Nodes that change guidance: their formulas on small tensors, and what they set on a model."""

from types import SimpleNamespace

import pytest
import torch

import comfy.model_sampling
from comfy_extras import (
    nodes_apg,
    nodes_cfg,
    nodes_eps,
    nodes_fresca,
    nodes_lumina2,
    nodes_mahiro,
    nodes_nag,
    nodes_tcfg,
    nodes_video_model,
)


class Options:
    """A patcher that keeps what nodes set on it, by the setter's name."""

    def __init__(self):
        self.set = {}
        self.model = SimpleNamespace(diffusion_model=SimpleNamespace(in_channels=2))

    def clone(self):
        return Options()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda function=True, **options: self.set.setdefault(name, function)


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def function_of(node, *settings, setter="post", **named):
    clone = node.execute(Options(), *settings, **named).args[0]
    return clone.set[{"post": "set_model_sampler_post_cfg_function", "pre": "set_model_sampler_pre_cfg_function"}.get(setter, setter)]


def sides(scale=3.0, channels=4):
    """Arguments of functions around guidance, with plain guidance as result."""
    x, cond, uncond = (numbers(2, channels, 6, 6, seed=seed) for seed in range(3))
    return {
        "input": x,
        "cond_denoised": cond,
        "uncond_denoised": uncond,
        "denoised": uncond + scale * (cond - uncond),
        "cond_scale": scale,
        "sigma": torch.tensor([2.0, 2.0]),
    }


def guided(pictures, scale):
    return pictures[1] + scale * (pictures[0] - pictures[1])


def apg(function, sigma, pictures, scale=3.0):
    return function({"conds_out": pictures, "sigma": torch.tensor([sigma]), "cond_scale": scale})


def test_projected_guidance_that_keeps_all_is_guidance_by_one_more():
    pictures = [numbers(2, 4, 5, 5, seed=seed) for seed in (0, 1)]
    changed = apg(function_of(nodes_apg.APG, 1.0, 0.0, 0.0, setter="pre"), 1.0, pictures)
    assert torch.allclose(guided(changed, 3.0), guided(pictures, 4.0), atol=1e-5)


def test_projected_guidance_drops_what_lies_along_the_prediction():
    pictures = [numbers(2, 4, 5, 5, seed=seed) for seed in (0, 1)]
    function = function_of(nodes_apg.APG, 0.0, 0.5, 0.0, setter="pre")
    changed = apg(function, 1.0, pictures)
    across = changed[0] - pictures[1] - (pictures[0] - pictures[1]) / 3.0
    assert (across * pictures[0]).sum((-1, -2, -3)).abs().max() < 1e-5
    assert torch.linalg.vector_norm(across, dim=(-1, -2, -3)).max() <= 0.5 + 1e-5
    assert apg(function, 1.0, pictures[:1]) == pictures[:1]


def test_momentum_lasts_until_the_noise_rises_or_the_size_changes():
    positive, negative = numbers(1, 4, 5, 5), torch.zeros(1, 4, 5, 5)
    function = function_of(nodes_apg.APG, 1.0, 0.0, 0.5, setter="pre")

    def strength(sigma, one=positive, other=negative):
        return ((apg(function, sigma, [one, other], 1e9)[0] * one).sum() / (one * one).sum()).item()

    assert [round(strength(sigma), 4) for sigma in (3.0, 2.0, 1.0)] == [1.0, 1.5, 1.75]
    assert strength(5.0) == pytest.approx(1.0)
    assert strength(4.0, numbers(1, 4, 3, 3), torch.zeros(1, 4, 3, 3)) == pytest.approx(1.0)
    assert nodes_apg.ProjectedGuidance(1.0, 2.0, 0.5).patch_identity_key() == (1.0, 2.0, 0.5)


def test_zero_star_scales_the_negative_side_to_the_positive_one():
    arguments = sides()
    x = arguments["input"]
    arguments["cond_denoised"] = x - 2.5 * (x - arguments["uncond_denoised"])
    result = function_of(nodes_cfg.CFGZeroStar)(
        arguments | {"denoised": guided([arguments["cond_denoised"], arguments["uncond_denoised"]], 3.0)}
    )
    expected = 2.5 * arguments["uncond_denoised"] + 3.0 * (arguments["cond_denoised"] - 2.5 * arguments["uncond_denoised"])
    assert torch.allclose(result, expected, atol=1e-4)


def test_normed_guidance_never_makes_pixels_longer_than_the_positive_side():
    arguments = sides()
    result = function_of(nodes_cfg.CFGNorm, 1.0)(arguments)
    assert (result.norm(dim=1) <= arguments["cond_denoised"].norm(dim=1) + 1e-5).all()
    shorter = arguments | {"denoised": arguments["cond_denoised"] / 2}
    assert torch.allclose(function_of(nodes_cfg.CFGNorm, 0.5)(shorter), shorter["denoised"] / 2)


def test_noise_of_the_positive_length_may_grow():
    cond, uncond = numbers(2, 4, 6, 6), numbers(2, 4, 6, 6, seed=1)
    arguments = {"cond": cond, "uncond": uncond, "cond_scale": 0.1}
    full = function_of(nodes_cfg.CFGNorm, 1.0, pre_cfg=True, setter="set_model_sampler_cfg_function")(arguments)
    assert torch.allclose(full.norm(dim=1), cond.norm(dim=1), rtol=1e-4)
    half = function_of(nodes_cfg.CFGNorm, 0.5, pre_cfg=True, setter="set_model_sampler_cfg_function")(arguments)
    assert torch.allclose(half, (full + uncond + 0.1 * (cond - uncond)) / 2, atol=1e-5)
    nothing = {"cond": cond, "uncond": -cond, "cond_scale": 0.5}
    assert function_of(nodes_cfg.CFGNorm, 1.0, pre_cfg=True, setter="set_model_sampler_cfg_function")(nothing).abs().max() == 0


def test_epsilon_scaling_divides_the_noise():
    arguments = sides()
    noise = arguments["input"] - arguments["denoised"]
    assert torch.allclose(function_of(nodes_eps.EpsilonScaling, 1.25)(arguments), arguments["input"] - noise / 1.25, atol=1e-5)
    assert torch.isfinite(function_of(nodes_eps.EpsilonScaling, 0)(arguments)).all()


@pytest.mark.parametrize("kind", [comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.ModelSamplingDiscreteFlow])
def test_scores_are_rescaled_the_more_the_less_noise_there_is(kind):
    is_flow = kind is comfy.model_sampling.ModelSamplingDiscreteFlow
    sampling = type("Sampling", (kind, comfy.model_sampling.CONST if is_flow else comfy.model_sampling.EPS), {})()
    model = SimpleNamespace(current_patcher=SimpleNamespace(get_model_object=lambda name: sampling))
    function = function_of(nodes_eps.TemporalScoreRescaling, 0.8, 1.0)
    x, signal = numbers(1, 4, 4, 4), 1.0
    for sigma, expected in ((0.001, 0.8), (0.5, None), (0.999 if is_flow else 500.0, 1.0)):
        signal = 1 - sigma if is_flow else 1.0
        denoised = numbers(1, 4, 4, 4, seed=1)
        result = function({"input": x, "denoised": denoised, "sigma": torch.tensor([sigma]), "model": model})
        factor = (((x - signal * result) * (x - signal * denoised)).sum() / ((x - signal * denoised) ** 2).sum()).item()
        assert factor == pytest.approx(expected, abs=0.01) if expected else 0.81 < factor < 0.99
    unchanged = {"input": x, "denoised": x, "sigma": torch.tensor([0.0]), "model": model}
    assert function(unchanged) is x and function_of(nodes_eps.TemporalScoreRescaling, 1, 1.0)(unchanged) is x
    assert nodes_eps.compute_tsr_rescaling_factor(torch.tensor(torch.inf), 0.8, 1.0).item() == pytest.approx(0.8)


def test_frequencies_of_guidance_are_scaled_apart():
    flat, fine = torch.ones(1, 1, 8, 8), torch.tensor([1.0, -1.0]).repeat(8, 4).view(1, 1, 8, 8)
    assert torch.allclose(nodes_fresca.Fourier_filter(flat + fine, 2.0, 3.0, 1), 2 * flat + 3 * fine, atol=1e-5)
    assert torch.allclose(nodes_fresca.Fourier_filter(flat + fine, 2.0, 3.0, 100), 2 * (flat + fine), atol=1e-5)
    function = function_of(nodes_fresca.FreSca, 1.0, 3.0, 1, setter="pre")
    pictures = [flat + fine, flat / 2]
    changed = function({"conds_out": pictures, "conds": [[], []]})
    assert torch.allclose(changed[0], flat + 3 * fine, atol=1e-5)
    assert function({"conds_out": pictures, "conds": [[], None]}) is pictures


def test_positive_biased_guidance_ends_at_the_positive_side():
    arguments = sides() | {"uncond_denoised": -numbers(2, 4, 6, 6, seed=1)}
    function = function_of(nodes_mahiro.Mahiro)
    leap = arguments["cond_denoised"] * 3.0
    opposite = arguments | {"cond_denoised": numbers(2, 4, 6, 6), "uncond_denoised": -numbers(2, 4, 6, 6)}
    opposite["denoised"] = opposite["cond_denoised"] * 3.0
    assert torch.allclose(function(opposite), opposite["cond_denoised"] * 3.0)
    same = arguments | {"uncond_denoised": arguments["cond_denoised"], "denoised": leap * 0.5}
    assert torch.allclose(function(same), leap * 0.5, atol=1e-5)


def test_damping_keeps_only_what_both_scores_share():
    along = numbers(2, 4, 5, 5)
    assert torch.allclose(nodes_tcfg.score_tangential_damping(along, 2 * along), 2 * along, atol=1e-4)
    small = 1e-3 * numbers(2, 4, 5, 5, seed=1)
    damped = nodes_tcfg.score_tangential_damping(along, small)
    shares = (damped * along).flatten(1).sum(1) / (damped.flatten(1).norm(dim=1) * along.flatten(1).norm(dim=1))
    assert torch.allclose(shares.abs(), torch.ones(2), atol=1e-4)
    x = torch.zeros(2, 4, 5, 5)
    function = function_of(nodes_tcfg.TCFG, setter="pre")
    positive, negative = function({"input": x, "conds_out": [-along, -small], "conds": [[], []]})
    assert positive.equal(-along) and torch.allclose(negative, -damped)
    alone = [along]
    assert function({"input": x, "conds_out": alone, "conds": [[]]}) is alone


def test_guided_features_keep_to_their_bound():
    positive, negative = numbers(2, 3, 8), numbers(2, 3, 8, seed=1)
    full = nodes_nag.guided_features(positive, negative, 5.0, 1.0, 1.5)
    assert (full.norm(p=1, dim=-1) <= 1.5 * positive.norm(p=1, dim=-1) + 1e-4).all()
    assert torch.allclose(nodes_nag.guided_features(positive, negative, 5.0, 0.0, 1.5), positive)
    assert torch.allclose(nodes_nag.guided_features(positive, negative, 1.0, 1.0, 1.5), positive, atol=1e-6)


def test_attention_is_guided_where_both_sides_are_computed_and_in_the_picture(monkeypatch):
    class Registry:
        def patched(self, model, params, build):
            clone = model.clone()
            build(clone)
            return clone

    monkeypatch.setattr("comfy.patching.patched_models.patched_models", Registry)
    clone = nodes_nag.NAGuidance.execute(Options(), 4.0, 0.5, 1.5).args[0]
    guide = clone.set["set_model_attn1_output_patch"]
    assert clone.set["disable_model_cfg1_optimization"] is True
    out = numbers(2, 5, 8)
    negative, positive = out.clone().chunk(2)
    expected = nodes_nag.guided_features(positive, negative, 4.0, 0.5, 1.5)
    changed = guide(out.clone(), {"cond_or_uncond": [1, 0]})
    assert torch.allclose(changed[1:], expected) and changed[:1].equal(negative)
    joint = guide(out.clone(), {"cond_or_uncond": [1, 0], "img_slice": [2, 5]})
    assert joint[:, :2].equal(out[:, :2]) and torch.allclose(joint[:, 2:], expected[:, 2:].expand(2, -1, -1))
    for options in ({}, {"cond_or_uncond": [0]}):
        assert guide(out, options) is out


def test_renormed_guidance_works_on_the_networks_own_channels():
    arguments = sides() | {"timestep": torch.tensor([2.0, 2.0])}
    x, cond, uncond = (arguments[name] for name in ("input", "cond_denoised", "uncond_denoised"))

    def picture(*settings):
        return x - function_of(nodes_lumina2.RenormCFG, *settings, setter="set_model_sampler_cfg_function")(arguments)

    free = picture(100.0, 0.0)
    assert torch.allclose(free[:, :2], guided([cond, uncond], 3.0)[:, :2], atol=1e-5) and torch.allclose(
        free[:, 2:], cond[:, 2:], atol=1e-6
    )
    bounded = picture(100.0, 0.5)[:, :2].flatten(1).norm(dim=1)
    assert torch.allclose(bounded, 0.5 * cond[:, :2].flatten(1).norm(dim=1), rtol=1e-4)
    assert torch.allclose(picture(1.0, 1.0), cond, atol=1e-6)


@pytest.mark.parametrize(("node", "scales"), [("VideoLinearCFGGuidance", [1, 2, 3, 4, 5]), ("VideoTriangleCFGGuidance", [1, 3, 5, 3, 1])])
def test_guidance_changes_from_frame_to_frame(node, scales):
    (clone,) = getattr(nodes_video_model, node)().patch(Options(), 1.0)
    cond, uncond = torch.ones(5, 4, 2, 2), torch.zeros(5, 4, 2, 2)
    result = clone.set["set_model_sampler_cfg_function"]({"cond": cond, "uncond": uncond, "cond_scale": 5.0})
    assert result[:, 0, 0, 0].tolist() == pytest.approx(scales)


def test_areas_in_time_are_shares():
    ((context, values),) = nodes_video_model.ConditioningSetAreaPercentageVideo().append([["text", {}]], 0.5, 0.4, 0.3, 0.1, 0.2, 0.6, 2.0)[
        0
    ]
    assert context == "text" and values["area"] == ("percentage", 0.3, 0.4, 0.5, 0.6, 0.2, 0.1)
    assert (values["strength"], values["set_area_to_bounds"]) == (2.0, False)
