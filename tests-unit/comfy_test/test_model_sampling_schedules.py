"""Schedules and predictions: their identities, and values of the published schedule."""

import types

import pytest
import torch

from comfy import latent_formats, model_sampling

SIGMA = torch.tensor([0.5, 7.0])


def mixed(schedule, prediction, **settings):
    return type("Mixed", (schedule, prediction), {})(types.SimpleNamespace(sampling_settings=settings))


def test_the_published_schedule():
    sampling = mixed(model_sampling.ModelSamplingDiscrete, model_sampling.EPS)
    assert len(sampling.sigmas) == 1000
    assert sampling.sigma_min.item() == pytest.approx(0.0292, abs=1e-4) and sampling.sigma_max.item() == pytest.approx(14.6146, abs=1e-3)


def test_steps_and_sigmas_invert_each_other():
    sampling = mixed(model_sampling.ModelSamplingDiscrete, model_sampling.EPS)
    steps = torch.tensor([0, 17, 500, 999])
    assert torch.equal(sampling.timestep(sampling.sigma(steps)), steps)
    between = sampling.sigma(torch.tensor([10.5]))
    assert sampling.sigmas[10] < between < sampling.sigmas[11]
    for kind in (
        model_sampling.ModelSamplingContinuousEDM,
        model_sampling.ModelSamplingContinuousV,
        model_sampling.ModelSamplingDiscreteFlow,
        model_sampling.ModelSamplingDiscreteEDM,
    ):
        other = mixed(kind, model_sampling.EPS)
        torch.testing.assert_close(other.sigma(other.timestep(SIGMA)), SIGMA)


@pytest.mark.parametrize(
    ("schedule", "at_start"),
    [
        (model_sampling.ModelSamplingDiscrete, 999999999.9),
        (model_sampling.ModelSamplingContinuousEDM, 999999999.9),
        (model_sampling.ModelSamplingDiscreteFlow, 1.0),
        (model_sampling.ModelSamplingFlux, 1.0),
    ],
)
def test_percentages_run_from_all_noise_to_none(schedule, at_start):
    sampling = mixed(schedule, model_sampling.EPS)
    values = [float(sampling.percent_to_sigma(percent)) for percent in (0.0, 0.2, 0.5, 0.9, 1.0)]
    assert values == sorted(values, reverse=True) and values[0] == at_start and values[-1] == 0.0


def test_zero_terminal_signal_keeps_the_first_sigma():
    plain = mixed(model_sampling.ModelSamplingDiscrete, model_sampling.EPS)
    rescaled = mixed(model_sampling.ModelSamplingDiscrete, model_sampling.EPS, zsnr=True)
    torch.testing.assert_close(rescaled.sigmas[0], plain.sigmas[0], rtol=1e-3, atol=1e-5)
    assert rescaled.sigma_max > 4000


@pytest.mark.parametrize(
    ("prediction", "target"),
    [
        (model_sampling.EPS, lambda x0, noise, s: noise),
        (model_sampling.V_PREDICTION, lambda x0, noise, s: (noise - s * x0) / (s**2 + 1) ** 0.5),
        (model_sampling.EDM, lambda x0, noise, s: (s * x0 - noise) / (s**2 + 1) ** 0.5),
        (model_sampling.X0, lambda x0, noise, s: x0),
    ],
)
def test_a_perfect_prediction_gives_the_picture(prediction, target):
    sampling = mixed(model_sampling.ModelSamplingContinuousEDM, prediction)
    picture, noise = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    level = SIGMA.view(2, 1, 1, 1)
    noisy = sampling.noise_scaling(SIGMA, noise, picture)
    torch.testing.assert_close(noisy, picture + noise * level)
    torch.testing.assert_close(sampling.calculate_denoised(SIGMA, target(picture, noise, level), noisy), picture, rtol=1e-4, atol=1e-4)
    assert sampling.calculate_input(SIGMA, noisy).std() < 2


def test_flow_goes_straight_from_picture_to_noise():
    sampling = mixed(model_sampling.ModelSamplingFlux, model_sampling.CONST)
    picture, noise, sigma = torch.randn(1, 4, 3, 3), torch.randn(1, 4, 3, 3), torch.tensor([0.3])
    noisy = sampling.noise_scaling(sigma, noise, picture)
    torch.testing.assert_close(sampling.calculate_denoised(sigma, noise - picture, noisy), picture)
    torch.testing.assert_close(sampling.inverse_noise_scaling(sigma, picture * 0.7), picture)
    assert sampling.calculate_input(sigma, noisy) is noisy


def test_starting_from_noise_alone_has_its_own_scale():
    sampling = mixed(model_sampling.ModelSamplingDiscrete, model_sampling.EPS)
    noise = torch.randn(1, 4, 3, 3)
    torch.testing.assert_close(sampling.noise_scaling(torch.tensor([3.0]), noise, torch.zeros_like(noise), True), noise * 10**0.5)
    unscaled = model_sampling.IMG_TO_IMG()
    assert unscaled.calculate_input(SIGMA, noise) is noise and unscaled.calculate_denoised(SIGMA, noise, None) is noise


def test_time_shifts_keep_the_ends():
    assert model_sampling.time_snr_shift(3.0, 1.0) == 1.0 and model_sampling.time_snr_shift(1.0, 0.4) == 0.4
    assert model_sampling.time_snr_shift(3.0, 0.5) == 0.75
    assert model_sampling.flux_time_shift(1.15, 1.0, 1.0) == 1.0


@pytest.mark.parametrize("name", ["linear", "sqrt_linear", "sqrt", "cosine"])
def test_beta_schedules_lie_between_zero_and_one(name):
    betas = model_sampling.make_beta_schedule(name, 100)
    assert betas.dtype is torch.float64 and (betas > 0).all() and (betas < 1).all()


def test_an_unknown_beta_schedule_is_refused():
    with pytest.raises(ValueError, match="cubic"):
        model_sampling.make_beta_schedule("cubic", 10)


@pytest.mark.parametrize("name", ["SD15", "SDXL", "SDXL_Playground_2_5", "LatentFormat"])
def test_latent_formats_invert(name):
    latent, form = torch.randn(2, 4, 5, 5), getattr(latent_formats, name)()
    torch.testing.assert_close(form.process_out(form.process_in(latent)), latent, rtol=1e-4, atol=1e-5)
