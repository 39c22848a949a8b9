import math
from types import SimpleNamespace

import pytest
import torch
from sampling_toys import DEVIATION, MEAN, DiscreteEps, Flow, GaussianModel, exact_solution, geometric_sigmas

import comfy.samplers
from comfy.extra_samplers import uni_pc
from comfy.k_diffusion import sampling
from comfy.sampling.multistep import linear_multistep_coeff

ORDERS = {"euler": 1, "heun": 2, "dpm_2": 2, "lms": 3, "dpmpp_2m": 2}
STOCHASTIC_ORDERS = {
    "euler_ancestral": 1,
    "dpm_2_ancestral": 2,
    "dpmpp_2s_ancestral": 2,
    "dpmpp_sde": 2,
    "dpmpp_2m_sde": 2,
    "dpmpp_2m_sde_heun": 2,
    "dpmpp_3m_sde": 2,
}
CALLS_PER_STEP = {"heun": 2, "dpm_2": 2, "dpm_2_ancestral": 2, "dpmpp_2s_ancestral": 2, "dpmpp_sde": 2, "dpmpp_sde_gpu": 2}


def starting_points():
    return 10 * torch.randn(1, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def error_after(steps, run):
    x = starting_points()
    return (run(GaussianModel(), x, geometric_sigmas(10.0, 0.1, steps)) - exact_solution(x, 10.0, 0.1)).abs().max().item()


def observed_order(run):
    return math.log2(error_after(80, run) / error_after(160, run))


@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_deterministic_samplers_converge_with_their_order(name, order):
    function = getattr(sampling, f"sample_{name}")
    assert observed_order(lambda model, x, sigmas: function(model, x, sigmas, disable=True)) > order - 0.1


@pytest.mark.parametrize(("name", "order"), STOCHASTIC_ORDERS.items())
def test_stochastic_samplers_without_noise_converge_with_their_order(name, order):
    function = getattr(sampling, f"sample_{name}")
    assert observed_order(lambda model, x, sigmas: function(model, x, sigmas, {"seed": 1}, disable=True, eta=0.0)) > order - 0.1


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
def test_unipc_converges_with_second_order_through_its_uncorrected_last_step(variant):
    assert observed_order(lambda model, x, sigmas: uni_pc.sample_unipc(model, x, sigmas, disable=True, variant=variant)) > 1.9


def test_unipc_refuses_an_unknown_variant():
    with pytest.raises(ValueError, match="bh3.*bh1, bh2"):
        uni_pc.sample_unipc(GaussianModel(), starting_points(), geometric_sigmas(10.0, 0.1, 4), variant="bh3")


def test_unipc_leaves_the_given_sigmas_alone():
    sigmas = torch.tensor([3.0, 1.0, 0.0])
    uni_pc.sample_unipc(GaussianModel(), torch.ones(1, 1, 2, 2), sigmas, disable=True)
    assert sigmas.tolist() == [3.0, 1.0, 0.0]


NOT_FOR_FLOWS = {"ddpm", "uni_pc", "uni_pc_bh2"}
RUNS = [
    (name, kind)
    for kind in (DiscreteEps, Flow)
    for name in comfy.samplers.SAMPLER_NAMES
    if kind is DiscreteEps or name not in NOT_FOR_FLOWS
]


@pytest.mark.parametrize(("name", "make_sampling"), RUNS)
def test_every_sampler_turns_noise_into_data(name, make_sampling):
    model = GaussianModel(make_sampling())
    sigmas = comfy.samplers.calculate_sigmas(model.sampling, "exponential", 40)
    noise = torch.randn(4, 4, 32, 32, generator=torch.Generator().manual_seed(3))
    start = model.sampling.noise_scaling(sigmas[0], noise, torch.zeros_like(noise), True)
    sampler = comfy.samplers.sampler_object(name)
    seen = []
    result = sampler.sampler_function(model, start, sigmas, extra_args={"seed": 5}, callback=seen.append, disable=True)
    assert result.mean().item() == pytest.approx(MEAN, abs=0.05)
    if name != "lcm":  # it asks the model for a sample in one call, and this model answers with a mean
        assert result.std().item() == pytest.approx(DEVIATION, rel=0.15)
    assert [state["i"] for state in seen] == list(range(len(sigmas) - 1))
    assert len(model.calls) <= CALLS_PER_STEP.get(name, 1) * (len(sigmas) - 1)


@pytest.mark.parametrize("name", ["euler_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde", "lcm", "ddpm"])
def test_added_noise_depends_on_the_seed_alone(name):
    function = getattr(sampling, f"sample_{name}")
    sigmas = comfy.samplers.calculate_sigmas(DiscreteEps(), "karras", 5)

    def run(seed):
        torch.manual_seed(torch.seed())
        return function(GaussianModel(), torch.full((1, 1, 4, 4), 14.0), sigmas, {"seed": seed}, disable=True)

    assert torch.equal(run(11), run(11))
    assert not torch.equal(run(11), run(12))


@pytest.mark.parametrize("name", ["dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde", "dpmpp_2m_sde_gpu"])
def test_sde_samplers_return_the_latent_when_there_is_no_step(name):
    x = torch.ones(1, 1, 2, 2)
    assert getattr(sampling, f"sample_{name}")(GaussianModel(), x, torch.tensor([1.0]), disable=True) is x


def test_churn_raises_the_level_before_a_step():
    seen = []
    sampling.sample_euler(
        GaussianModel(), torch.zeros(1, 1, 2, 2), torch.tensor([2.0, 1.0, 0.0]), callback=seen.append, disable=True, s_churn=0.5, s_tmin=1.5
    )
    assert [float(state["sigma_hat"]) for state in seen] == pytest.approx([2.0 * 1.25, 1.0])


def test_ancestral_step_keeps_the_variance():
    down, up = sampling.get_ancestral_step(torch.tensor(5.0), torch.tensor(2.0))
    assert float(down**2 + up**2) == pytest.approx(4.0)
    assert sampling.get_ancestral_step(5.0, 2.0, eta=0.0) == (2.0, 0.0)


def test_ddpm_step_is_the_posterior_of_the_chain():
    sigma, following = torch.tensor(5.0, dtype=torch.float64), torch.tensor(3.0, dtype=torch.float64)
    bar, bar_next = 1 / (1 + sigma**2), 1 / (1 + following**2)
    alpha = bar / bar_next
    x, noise, fresh = torch.randn(3, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    picture = (x - (1 - bar).sqrt() * noise) / bar.sqrt()
    mean = (bar_next.sqrt() * (1 - alpha) * picture + alpha.sqrt() * (1 - bar_next) * x) / (1 - bar)
    variance = (1 - alpha) * (1 - bar_next) / (1 - bar)
    stepped = sampling.DDPMSampler_step(x, sigma, following, noise, lambda *levels: fresh)
    assert torch.allclose(stepped, mean + variance.sqrt() * fresh)


def test_multistep_weights_integrate_polynomials_exactly():
    times = [5.0, 3.5, 2.0, 1.2, 0.7]
    for order in (1, 2, 3, 4):
        weights = [linear_multistep_coeff(order, times, 3, back) for back in range(order)]
        for degree in range(order):
            exact = (times[4] ** (degree + 1) - times[3] ** (degree + 1)) / (degree + 1)
            assert sum(weight * times[3 - back] ** degree for back, weight in enumerate(weights)) == pytest.approx(exact)
    with pytest.raises(ValueError, match="order 3 needs 3 slopes"):
        linear_multistep_coeff(3, times, 1, 0)


def test_an_unknown_sampler_is_refused_by_name():
    with pytest.raises(ValueError, match="no sampler 'nonsense'.*euler"):
        comfy.samplers.ksampler("nonsense")


def test_a_sampler_that_a_pack_adds_is_found(monkeypatch):
    monkeypatch.setattr(sampling, "sample_of_a_pack", lambda model, x, sigmas, **kwargs: x + 1, raising=False)
    assert comfy.samplers.ksampler("of_a_pack").sampler_function(None, 1, None) == 2


def test_lcm_noise_factor_runs_from_first_to_last_step():
    factors = []
    model = GaussianModel()
    scaled = model.sampling.noise_scaling
    model.sampling.noise_scaling = lambda sigma, noise, x: factors.append(noise.std().item()) or scaled(sigma, noise, x)
    ones = torch.tensor([1.0, -1.0]).repeat(8).view(1, 1, 4, 4)
    sampling.sample_lcm(
        model,
        torch.zeros(1, 1, 4, 4),
        torch.tensor([8.0, 4.0, 2.0, 1.0, 0.0]),
        disable=True,
        noise_sampler=lambda sigma, following: ones,
        s_noise=1.0,
        s_noise_end=0.4,
    )
    assert [factor / ones.std().item() for factor in factors] == pytest.approx([1.0, 0.8, 0.6])


def test_a_sampler_without_gradients_makes_no_graph():
    x = torch.ones(1, 1, 2, 2, requires_grad=True)
    assert not sampling.sample_euler(GaussianModel(), x, torch.tensor([1.0, 0.0]), disable=True).requires_grad


def test_extra_args_reach_the_model():
    received = SimpleNamespace(value=None)

    class Recording(GaussianModel):
        def __call__(self, x, sigma, **extra_args):
            received.value = extra_args
            return super().__call__(x, sigma)

    sampling.sample_euler(Recording(), torch.ones(1, 1, 2, 2), torch.tensor([1.0, 0.0]), {"cond": "a", "seed": 3}, disable=True)
    assert received.value == {"cond": "a", "seed": 3}
