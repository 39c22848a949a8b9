import math

import pytest
import torch
from sampling_toys import GaussianModel, exact_solution

import comfy.samplers
from comfy.k_diffusion import sampling
from comfy.sampling.dpm_solver import PIDStepSizeController

X = 10 * torch.randn(1, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LOW, HIGH = torch.tensor(0.1, dtype=torch.float64), torch.tensor(10.0, dtype=torch.float64)


@pytest.mark.parametrize("calls", [1, 2, 3, 7, 9, 11])
def test_the_fast_solver_makes_the_number_of_calls_it_was_given(calls):
    model = GaussianModel()
    sampling.sample_dpm_fast(model, X, LOW, HIGH, calls, disable=True)
    assert len(model.calls) == calls


def test_the_fast_solver_converges_with_third_order():
    errors = [
        (sampling.sample_dpm_fast(GaussianModel(), X, LOW, HIGH, 3 * steps + 1, disable=True) - exact_solution(X, 10.0, 0.1)).abs().max()
        for steps in (40, 80)
    ]
    assert errors[0] / errors[1] > 2**1.9  # its last step is of first order


@pytest.mark.parametrize("order", [2, 3])
def test_the_adaptive_solver_keeps_to_its_tolerance(order):
    def run(tolerance):
        x, counts = sampling.sample_dpm_adaptive(
            GaussianModel(), X, LOW, HIGH, disable=True, order=order, rtol=tolerance, atol=tolerance, return_info=True
        )
        return (x - exact_solution(X, 10.0, 0.1)).abs().max(), counts

    rough, fine = run(0.05), run(0.001)
    assert fine[0] < rough[0] / 3
    assert rough[0] < 0.1
    assert fine[1]["steps"] > rough[1]["steps"]
    assert fine[1]["n_accept"] + fine[1]["n_reject"] == fine[1]["steps"]


def test_the_adaptive_solver_tries_a_step_again_that_was_too_wide():
    _, counts = sampling.sample_dpm_adaptive(GaussianModel(), X, LOW, HIGH, disable=True, h_init=4.0, rtol=0.01, return_info=True)
    assert counts["n_reject"] > 0


def test_the_controller_widens_after_a_small_error_and_refuses_a_large_one():
    controller = PIDStepSizeController(0.5, pcoeff=0.0, icoeff=1.0, dcoeff=0.0, order=2)
    assert controller.propose_step(0.25)
    assert controller.h == pytest.approx(0.5 * (1 + math.atan(2 - 1)))
    assert not controller.propose_step(4.0)
    assert controller.h == pytest.approx(0.5 * (1 + math.atan(1)) * (1 + math.atan(0.5 - 1)))


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="order is 4; it must be 2 or 3"):
        sampling.sample_dpm_adaptive(GaussianModel(), X, LOW, HIGH, order=4)
    with pytest.raises(ValueError, match="must be over 0"):
        sampling.sample_dpm_fast(GaussianModel(), X, 0.0, 10.0, 4, disable=True)
    with pytest.raises(ValueError, match="eta must be 0"):
        sampling.sample_dpm_fast(GaussianModel(), X, 10.0, 0.1, 4, disable=True, eta=1.0)


@pytest.mark.parametrize("name", ["dpm_fast", "dpm_adaptive"])
def test_by_name_they_take_sigmas_and_end_over_zero(name, monkeypatch):
    taken = []
    monkeypatch.setattr(sampling, f"sample_{name}", lambda model, x, low, high, **options: taken.append((low, high, options)) or x)
    function = comfy.samplers.ksampler(name).sampler_function
    function(None, X, torch.tensor([4.0, 2.0, 1.0, 0.0]), disable=True)
    assert function(None, X, torch.tensor([4.0])) is X
    calls = {"n": 3} if name == "dpm_fast" else {}
    assert taken == [(1.0, 4.0, {**calls, "disable": True})]
