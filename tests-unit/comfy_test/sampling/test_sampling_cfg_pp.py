import pytest
import torch
from sampling_toys import DiscreteEps, GaussianModel

import comfy.samplers
from comfy.k_diffusion import sampling
from comfy.sampling.cfg_pp import sample_euler_pp

SIGMAS = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5], dtype=torch.float64)
X = 8 * torch.randn(1, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
PAIRS = {
    "euler_cfg_pp": "euler",
    "dpmpp_2m_cfg_pp": "dpmpp_2m",
    "res_multistep_cfg_pp": "res_multistep",
    "gradient_estimation_cfg_pp": "gradient_estimation",
    "euler_ancestral_cfg_pp": "euler_ancestral",
    "res_multistep_ancestral_cfg_pp": "res_multistep_ancestral",
}


class Guided(GaussianModel):
    """Reports an unconditioned picture that differs by *distance* from the guided one."""

    def __init__(self, distance=0.0):
        super().__init__()
        self.distance = distance

    def __call__(self, x, sigma, model_options=None, **others):
        denoised = super().__call__(x, sigma)
        for function in (model_options or {}).get("sampler_post_cfg_function", ()):
            denoised = function({"denoised": denoised, "uncond_denoised": denoised - self.distance})
        return denoised


@pytest.mark.parametrize(("name", "plain"), PAIRS.items())
def test_without_guidance_it_is_the_plain_sampler(name, plain):
    ours, plains = (getattr(sampling, f"sample_{each}")(Guided(), X, SIGMAS, {"seed": 3}, disable=True) for each in (name, plain))
    assert torch.allclose(ours, plains)


@pytest.mark.parametrize("name", [*PAIRS, "dpmpp_2s_ancestral_cfg_pp"])  # whose plain form does not take the middle's side
def test_guidance_changes_the_result(name):
    near, far = (getattr(sampling, f"sample_{name}")(Guided(distance), X, SIGMAS, {"seed": 3}, disable=True) for distance in (0.0, 0.3))
    assert (near - far).abs().min() > 0.01


def test_the_noise_is_that_of_the_unconditioned_picture():
    model = Guided(0.3)
    denoised = GaussianModel()(X, SIGMAS[:1])
    expected = denoised + (X - denoised + 0.3) / SIGMAS[0] * SIGMAS[1]
    assert torch.allclose(sampling.sample_euler_cfg_pp(model, X, SIGMAS[:2], disable=True), expected)
    alternative = X + (X - denoised - 0.3) / SIGMAS[0] * (SIGMAS[1] - SIGMAS[0])
    assert torch.allclose(sample_euler_pp(model, X, SIGMAS[:2], disable=True), alternative)


def test_the_callers_options_stay_as_they_are():
    arguments = {"seed": 3, "model_options": {"kept": 1}}
    sampling.sample_euler_cfg_pp(Guided(), X, SIGMAS, arguments, disable=True)
    assert arguments == {"seed": 3, "model_options": {"kept": 1}}


def test_a_guider_without_the_hook_is_refused():
    with pytest.raises(ValueError, match="CFG\\+\\+ samplers need a guider.*Use CFGGuider"):
        sampling.sample_euler_cfg_pp(GaussianModel(DiscreteEps()), X, SIGMAS, disable=True)


def test_a_whole_sampling_asks_for_the_unconditioned_side_at_a_scale_of_one():
    from sampling_runs import run

    plain, pp = run(cfg=1.0, sampler="euler"), run(cfg=1.0, sampler="euler_cfg_pp")
    assert pp.isfinite().all()
    assert not torch.allclose(plain, pp, atol=1e-3)
    assert comfy.samplers.sampler_object("euler_cfg_pp").sampler_function is sampling.sample_euler_cfg_pp
