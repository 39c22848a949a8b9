import math

import pytest
import torch
from sampling_toys import GaussianModel, geometric_sigmas

from comfy.k_diffusion import sampling
from comfy.sampling.sa_solver import AdamsStep, get_tau_interval_func


@pytest.mark.parametrize("tau", [0.0, 1.0])
def test_weights_keep_a_picture_that_does_not_change(tau):
    step = AdamsStep(0.3, 0.9, tau)
    total = -math.expm1(-(1 + tau**2) * 0.6)
    assert sum(step.exact_weights([-0.8, -0.1, 0.3])) == pytest.approx(total)
    assert sum(step.simple_weights([-0.1, 0.3], False)) == pytest.approx(total)
    assert sum(step.simple_weights([0.3, 0.9], True)) == pytest.approx(total)


def test_noise_is_added_in_its_range_alone():
    tau = get_tau_interval_func(5.0, 1.0, 0.7)
    assert [tau(sigma) for sigma in (6.0, 5.0, torch.tensor(2.0), 1.0, 0.5)] == [0.0, 0.7, 0.7, 0.7, 0.0]
    assert get_tau_interval_func(5.0, 1.0, 0.0)(2.0) == 0.0


def test_predictor_and_corrector_share_their_noise():
    drawn = []

    def draw(sigma, sigma_next):
        drawn.append((float(sigma), float(sigma_next)))
        return torch.zeros(1, 1, 2, 2)

    sigmas = geometric_sigmas(10.0, 0.1, 6)
    sampling.sample_sa_solver(GaussianModel(), torch.ones(1, 1, 2, 2), sigmas, disable=True, noise_sampler=draw, tau_func=lambda sigma: 1.0)
    assert drawn == [(float(a), float(b)) for a, b in zip(sigmas, sigmas[1:])]


def test_without_a_step_the_latent_comes_back():
    x = torch.ones(1, 1, 2, 2)
    assert sampling.sample_sa_solver(GaussianModel(), x, torch.tensor([1.0])) is x
