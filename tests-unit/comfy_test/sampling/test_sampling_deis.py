import math

import pytest
import torch
from sampling_toys import GaussianModel, geometric_sigmas

from comfy.k_diffusion import sampling
from comfy.sampling.deis import PreservingTime, time_weights

SIGMAS = [14.0, 9.0, 5.0, 2.5, 1.0]


def test_times_and_sigmas_follow_the_preserving_diffusion():
    clock = PreservingTime()
    assert clock.of(80.0) == pytest.approx(1.0)
    assert clock.of(0.002) == pytest.approx(1e-3)
    time = clock.of(3.0)
    assert math.expm1(clock.slope * time**2 / 2 + clock.start * time) == pytest.approx(9.0)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_weights_integrate_slopes_that_are_polynomials_of_time(count):
    clock, points = PreservingTime(), 20_000
    weights = time_weights(SIGMAS, 3, count)
    width = (SIGMAS[4] - SIGMAS[3]) / points
    between = [SIGMAS[3] + (number + 0.5) * width for number in range(points)]
    for degree in range(count):
        exact = sum(clock.of(sigma) ** degree for sigma in between) * width
        assert sum(weight * clock.of(SIGMAS[3 - back]) ** degree for back, weight in enumerate(weights)) == pytest.approx(exact, rel=1e-6)


def test_the_sigma_mode_is_the_linear_multistep_method():
    x, sigmas = torch.full((1, 1, 2, 2), 9.0, dtype=torch.float64), geometric_sigmas(10.0, 0.1, 8)
    assert torch.allclose(
        sampling.sample_deis(GaussianModel(), x, sigmas, disable=True, deis_mode="rhoab"),
        sampling.sample_lms(GaussianModel(), x, sigmas, disable=True, order=3),
    )


@pytest.mark.parametrize(("options", "message"), [({"deis_mode": "tba"}, "'tba'.*tab, rhoab"), ({"max_order": 5}, "5.*from 1 to 4")])
def test_other_modes_and_orders_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sampling.sample_deis(GaussianModel(), torch.ones(1, 1, 2, 2), torch.tensor([1.0, 0.0]), disable=True, **options)
