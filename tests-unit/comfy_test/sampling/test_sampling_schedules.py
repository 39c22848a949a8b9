import math
from types import SimpleNamespace

import pytest
import torch
from sampling_toys import DiscreteEps, Flow

import comfy.samplers
from comfy.k_diffusion import sampling

MS = DiscreteEps()


@pytest.mark.parametrize("name", comfy.samplers.SCHEDULER_NAMES)
@pytest.mark.parametrize("make_sampling", [DiscreteEps, Flow])
@pytest.mark.parametrize("steps", [1, 2, 20])
def test_schedules_descend_from_the_highest_level_to_zero(name, make_sampling, steps):
    model_sampling = make_sampling()
    sigmas = comfy.samplers.calculate_sigmas(model_sampling, name, steps)
    assert sigmas.dtype == torch.float32
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()
    assert sigmas[0].item() <= model_sampling.sigma_max.item() * (1 + 1e-5)
    if name != "ddim_uniform":
        assert sigmas[0].item() == pytest.approx(model_sampling.sigma_max.item(), rel=1e-5)
        assert len(sigmas) == steps + 1


def test_karras_levels_are_equidistant_in_the_seventh_root():
    sigmas = sampling.get_sigmas_karras(5, 0.1, 10.0)
    roots = sigmas[:-1] ** (1 / 7)
    assert torch.allclose(roots.diff(), roots.diff()[0].expand(4), rtol=1e-4)
    assert sigmas[0].item() == pytest.approx(10.0, rel=1e-5)
    assert sigmas[-2].item() == pytest.approx(0.1, rel=1e-5)


def test_exponential_levels_have_a_constant_ratio():
    sigmas = sampling.get_sigmas_exponential(4, 0.1, 10.0)
    assert sigmas.tolist() == pytest.approx([10.0, 10 ** (1 / 3), 10 ** (-1 / 3), 0.1, 0.0], rel=1e-5)
    assert sampling.get_sigmas_polyexponential(4, 0.1, 10.0).tolist() == pytest.approx(sigmas.tolist(), rel=1e-5)
    assert sampling.get_sigmas_polyexponential(3, 0.1, 10.0, rho=2.0)[1].item() == pytest.approx(10 ** (-1 + 2 * 0.25), rel=1e-5)


def test_vp_levels_follow_the_sde():
    sigmas = sampling.get_sigmas_vp(2)
    assert sigmas.tolist() == pytest.approx([math.sqrt(math.expm1(19.9 / 2 + 0.1)), math.sqrt(math.expm1(19.9e-6 / 2 + 1e-4)), 0.0])


def test_laplace_levels_are_symmetric_in_log_sigma():
    sigmas = sampling.get_sigmas_laplace(5, 0.01, 100.0, mu=0.0, beta=0.5)
    assert (sigmas * sigmas.flip(0)).tolist() == pytest.approx([1.0] * 5, rel=1e-4)
    assert sigmas[1].item() == pytest.approx(math.exp(-0.5 * math.log(0.5)), rel=1e-4)


def test_simple_picks_from_the_table_in_even_strides():
    expected = [MS.sigmas[999 - 250 * step].item() for step in range(4)]
    assert comfy.samplers.simple_scheduler(MS, 4).tolist() == expected + [0.0]


def test_ddim_starts_at_the_second_entry():
    expected = [MS.sigmas[index].item() for index in (751, 501, 251, 1)]
    assert comfy.samplers.ddim_scheduler(MS, 4).tolist() == expected + [0.0]


def test_normal_is_even_in_time_and_sgm_leaves_the_last_time_out():
    assert comfy.samplers.normal_scheduler(MS, 4).tolist() == pytest.approx(
        [MS.sigma(torch.tensor(time)).item() for time in (999.0, 666.0, 333.0, 0.0)] + [0.0]
    )
    assert comfy.samplers.normal_scheduler(MS, 3, sgm=True).tolist() == pytest.approx(
        [MS.sigma(torch.tensor(time)).item() for time in (999.0, 666.0, 333.0)] + [0.0]
    )


def test_normal_does_not_repeat_a_schedule_that_ends_at_zero():
    ends_at_zero = SimpleNamespace(
        sigma_max=torch.tensor(2.0), sigma_min=torch.tensor(0.0), timestep=lambda sigma: sigma, sigma=lambda time: time
    )
    assert comfy.samplers.normal_scheduler(ends_at_zero, 4).tolist() == [2.0, 1.5, 1.0, 0.5, 0.0]


def test_beta_with_both_parameters_one_is_uniform():
    expected = [MS.sigmas[index].item() for index in (999, 749, 500, 250)]
    assert comfy.samplers.beta_scheduler(MS, 4, alpha=1.0, beta=1.0).tolist() == pytest.approx(expected + [0.0])


def test_beta_counts_equal_neighbours_once():
    table = SimpleNamespace(sigmas=torch.tensor([0.1, 1.0, 2.0]))
    assert comfy.samplers.beta_scheduler(table, 50).tolist() == pytest.approx([2.0, 1.0, 0.1, 0.0])


def test_linear_quadratic_removes_the_threshold_by_half_of_the_steps():
    sigmas = comfy.samplers.linear_quadratic_schedule(Flow(), 8)
    removed = 1 - sigmas
    assert removed[:5].tolist() == pytest.approx([0.0, 0.00625, 0.0125, 0.01875, 0.025], abs=1e-6)
    second_differences = removed[4:].diff().diff()
    assert torch.allclose(second_differences, second_differences[0].expand(3), atol=1e-5)


def test_kl_optimal_is_even_in_the_arctangent():
    angles = comfy.samplers.kl_optimal_scheduler(4, 0.1, 10.0)[:-1].atan()
    assert torch.allclose(angles.diff(), angles.diff()[0].expand(3), rtol=1e-4)


def test_an_unknown_scheduler_is_refused_by_name():
    with pytest.raises(ValueError, match="no scheduler 'nonsense'.*karras"):
        comfy.samplers.calculate_sigmas(MS, "nonsense", 4)


def patcher():
    return SimpleNamespace(get_model_object=lambda name: MS)


def test_a_scheduler_that_a_pack_adds_is_used(monkeypatch):
    handler = comfy.samplers.SchedulerHandler(lambda n, sigma_min, sigma_max: torch.tensor([sigma_max, 0.0]), use_ms=False)
    monkeypatch.setitem(comfy.samplers.SCHEDULER_HANDLERS, "of_a_pack", handler)
    monkeypatch.setattr(comfy.samplers, "SCHEDULER_NAMES", comfy.samplers.SCHEDULER_NAMES)
    comfy.samplers.SCHEDULER_NAMES.append("of_a_pack")
    try:
        chosen = comfy.samplers.KSampler(patcher(), 3, "cpu", "euler", "of_a_pack")
    finally:
        comfy.samplers.SCHEDULER_NAMES.remove("of_a_pack")
    assert chosen.sigmas.tolist() == pytest.approx([MS.sigma_max.item(), 0.0])


def test_calculate_sigmas_is_looked_up_at_call_time(monkeypatch):
    monkeypatch.setattr(comfy.samplers, "calculate_sigmas", lambda sampling, name, steps: torch.tensor([7.0, 0.0]))
    assert comfy.samplers.KSampler(patcher(), 3, "cpu", "euler", "karras").sigmas.tolist() == [7.0, 0.0]


def test_unknown_names_mean_the_first_known_ones():
    chosen = comfy.samplers.KSampler(patcher(), 3, "cpu", "nonsense", "nonsense")
    assert (chosen.sampler, chosen.scheduler) == ("euler", "simple")


@pytest.mark.parametrize("name", ["dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"])
def test_some_samplers_leave_the_last_level_before_zero_out(name):
    longer = comfy.samplers.calculate_sigmas(MS, "karras", 6)
    sigmas = comfy.samplers.KSampler(patcher(), 5, "cpu", name, "karras").sigmas
    assert sigmas.tolist() == [*longer[:-2].tolist(), 0.0]


def test_less_denoise_takes_the_end_of_a_longer_schedule():
    longer = comfy.samplers.calculate_sigmas(MS, "karras", 12)
    assert comfy.samplers.KSampler(patcher(), 5, "cpu", "euler", "karras", denoise=0.4).sigmas.tolist() == longer[-6:].tolist()
    assert len(comfy.samplers.KSampler(patcher(), 5, "cpu", "euler", "karras", denoise=0.0).sigmas) == 0
