import math
from types import SimpleNamespace

import pytest
import torch
from sampling_toys import DEVIATION, MEAN, DiscreteEps, Flow, GaussianModel, exact_solution, geometric_sigmas

import comfy.samplers
from comfy.extra_samplers import uni_pc
from comfy.k_diffusion import sampling
from comfy.sampling.er_sde import ErStep, scale_of_ode, scale_of_reverse_sde
from comfy.sampling.multistep import linear_multistep_coeff

ORDERS = {"euler": 1, "heun": 2, "dpm_2": 2, "lms": 3, "dpmpp_2m": 2, "exp_heun_2_x0": 2, "res_multistep": 2, "deis": 2.9}
ORDERS |= {"ipndm_v": 2, "ipndm": 1, "gradient_estimation": 1, "heunpp2": 1}
STOCHASTIC_ORDERS = {
    "euler_ancestral": 1,
    "dpm_2_ancestral": 2,
    "dpmpp_2s_ancestral": 2,
    "dpmpp_sde": 2,
    "dpmpp_2m_sde": 2,
    "dpmpp_2m_sde_heun": 2,
    "dpmpp_3m_sde": 2,
    "seeds_2": 2,
    "seeds_3": 3,
    "exp_heun_2_x0_sde": 2,
    "res_multistep_ancestral": 2,
}
CALLS_PER_STEP = {"heun": 2, "dpm_2": 2, "dpm_2_ancestral": 2, "dpmpp_2s_ancestral": 2, "dpmpp_sde": 2, "dpmpp_sde_gpu": 2}
CALLS_PER_STEP |= {"heunpp2": 3, "seeds_2": 2, "seeds_3": 3, "exp_heun_2_x0": 2, "exp_heun_2_x0_sde": 2, "sa_solver_pece": 2}
CALLS_PER_STEP |= {"dpmpp_2s_ancestral_cfg_pp": 2, "dpm_adaptive": 9}
NEW_NOISE = ("er_sde", "seeds_2", "seeds_3", "exp_heun_2_x0_sde", "sa_solver", "sa_solver_pece", "res_multistep_ancestral")
CHOOSES_STEPS = {"dpm_fast", "dpm_adaptive"}


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


def test_unipc_leaves_the_given_sigmas_alone_but_for_a_last_zero():
    for last, left in ((0.0, 0.001), (0.5, 0.5)):
        sigmas = torch.tensor([3.0, 1.0, last])
        uni_pc.sample_unipc(GaussianModel(), torch.ones(1, 1, 2, 2), sigmas, disable=True)
        assert sigmas.tolist() == pytest.approx([3.0, 1.0, left])


@pytest.mark.parametrize("name", ["uni_pc", "uni_pc_bh2", "euler"])
def test_sigmas_of_a_node_stay_and_a_flows_latent_is_taken_from_where_the_sampler_stopped(name):
    model, sigmas, noise = GaussianModel(Flow()), torch.tensor([0.9, 0.5, 0.0]), torch.ones(1, 1, 2, 2)
    model.inner_model.model_sampling = model.sampling
    sampler = comfy.samplers.sampler_object(name)
    result = sampler.sample(model, sigmas, {}, None, noise, torch.zeros_like(noise), disable_pbar=True)
    assert sigmas.tolist() == pytest.approx([0.9, 0.5, 0.0])
    own = sigmas.clone()
    started = model.sampling.noise_scaling(own[0], noise, torch.zeros_like(noise), False)
    stopped = sampler.sampler_function(model, started, own, {}, disable=True)
    assert own[-1].item() == pytest.approx(0.0 if name == "euler" else 0.001)
    assert torch.equal(result, stopped / (1 - own[-1]))


@pytest.mark.parametrize(
    ("order", "least"), [(2, 1.4), (3, 3.0), (4, 3.0)]
)  # 2 over more steps; the first steps are of third order at most
def test_the_adams_solver_without_noise_converges_with_its_order(order, least):
    def run(model, x, sigmas):
        return sampling.sample_sa_solver(
            model, x, sigmas, disable=True, tau_func=lambda sigma: 0.0, predictor_order=order, corrector_order=order
        )

    assert observed_order(run) > least


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_er_solver_without_noise_converges_with_its_order(order):
    def run(model, x, sigmas):
        return sampling.sample_er_sde(model, x, sigmas, disable=True, s_noise=0.0, noise_scaler=scale_of_ode, max_stage=order)

    assert observed_order(run) > (0.9 if order == 1 else 1.6)  # the integrals' own error bounds the higher ones


def test_even_weights_are_those_of_adams_and_bashforth():
    sigmas = torch.arange(9, 0, -1, dtype=torch.float64)
    x = starting_points()
    even, exact = (function(GaussianModel(), x, sigmas, disable=True) for function in (sampling.sample_ipndm, sampling.sample_lms))
    assert torch.allclose(even, exact)
    uneven = sampling.sample_ipndm_v(GaussianModel(), x, sigmas, disable=True, max_order=3)
    assert torch.allclose(uneven, sampling.sample_ipndm(GaussianModel(), x, sigmas, disable=True, max_order=3))


@pytest.mark.parametrize("name", ["ipndm", "ipndm_v"])
def test_orders_over_four_are_refused(name):
    with pytest.raises(ValueError, match="max_order is 5; it must be from 1 to 4"):
        getattr(sampling, f"sample_{name}")(GaussianModel(), starting_points(), torch.tensor([1.0, 0.0]), max_order=5)


def test_an_unknown_exponential_solver_is_refused():
    with pytest.raises(ValueError, match="'phi_3'.*phi_1, phi_2"):
        sampling.sample_seeds_2(GaussianModel(), starting_points(), torch.tensor([1.0, 0.0]), solver_type="phi_3")


def test_the_reverse_sde_adds_the_variance_that_its_step_takes():
    step = ErStep(torch.tensor(4.0), torch.tensor(2.0), scale_of_reverse_sde)
    assert float(step.kept) == 0.25
    assert float(step.fresh()) == pytest.approx((4 - 1) ** 0.5)
    assert float(ErStep(torch.tensor(4.0), torch.tensor(2.0), scale_of_ode).fresh()) == 0.0


def is_for_flows(name):
    """Noise of the others is right for models whose signal does not shrink, in ComfyUI as well."""
    return name not in {"ddpm", "uni_pc", "uni_pc_bh2", "res_multistep_ancestral"}


RUNS = [
    (name, kind)
    for kind in (DiscreteEps, Flow)
    for name in comfy.samplers.SAMPLER_NAMES
    if "cfg_pp" not in name and (kind is DiscreteEps or is_for_flows(name))
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
    assert [state["i"] for state in seen] == list(range(len(seen) if name in CHOOSES_STEPS else len(sigmas) - 1))
    assert len(model.calls) <= CALLS_PER_STEP.get(name, 1) * (len(sigmas) - 1)


@pytest.mark.parametrize("name", ["euler_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde", "lcm", "ddpm", *NEW_NOISE])
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
