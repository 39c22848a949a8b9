"""The names node packs import for samplers and noise levels. Packs also add functions here: ``comfy.samplers`` looks them up by name."""

from comfy.lazy_import import lazy_module
from comfy.sampling.dpm_solver_pp import sample_dpmpp_2m, sample_dpmpp_2s_ancestral, sample_dpmpp_sde, sample_dpmpp_sde_gpu
from comfy.sampling.dpm_solver_pp_sde import (
    sample_dpmpp_2m_sde,
    sample_dpmpp_2m_sde_gpu,
    sample_dpmpp_2m_sde_heun,
    sample_dpmpp_2m_sde_heun_gpu,
    sample_dpmpp_3m_sde,
    sample_dpmpp_3m_sde_gpu,
)
from comfy.sampling.euler import sample_dpm_2, sample_dpm_2_ancestral, sample_euler, sample_euler_ancestral, sample_heun
from comfy.sampling.multistep import linear_multistep_coeff, sample_lms
from comfy.sampling.noise import BatchedBrownianTree, BrownianTreeNoiseSampler, default_noise_sampler
from comfy.sampling.one_step_chains import DDPMSampler_step, generic_step_sampler, sample_ddpm, sample_lcm
from comfy.sampling.schedules import (
    get_sigmas_exponential,
    get_sigmas_karras,
    get_sigmas_laplace,
    get_sigmas_polyexponential,
    get_sigmas_vp,
)
from comfy.sampling.solver_run import (
    append_zero,
    get_ancestral_step,
    half_log_snr_to_sigma,
    offset_first_sigma_for_snr,
    sigma_to_half_log_snr,
    to_d,
)
from comfy.utils import model_trange as trange

# Packs look at this name, or put an object with another ``randn_like`` in its place.
torch = lazy_module("torch")

__all__ = [
    "BatchedBrownianTree",
    "BrownianTreeNoiseSampler",
    "DDPMSampler_step",
    "append_zero",
    "default_noise_sampler",
    "generic_step_sampler",
    "get_ancestral_step",
    "get_sigmas_exponential",
    "get_sigmas_karras",
    "get_sigmas_laplace",
    "get_sigmas_polyexponential",
    "get_sigmas_vp",
    "half_log_snr_to_sigma",
    "linear_multistep_coeff",
    "offset_first_sigma_for_snr",
    "sample_ddpm",
    "sample_dpm_2",
    "sample_dpm_2_ancestral",
    "sample_dpmpp_2m",
    "sample_dpmpp_2m_sde",
    "sample_dpmpp_2m_sde_gpu",
    "sample_dpmpp_2m_sde_heun",
    "sample_dpmpp_2m_sde_heun_gpu",
    "sample_dpmpp_2s_ancestral",
    "sample_dpmpp_3m_sde",
    "sample_dpmpp_3m_sde_gpu",
    "sample_dpmpp_sde",
    "sample_dpmpp_sde_gpu",
    "sample_euler",
    "sample_euler_ancestral",
    "sample_heun",
    "sample_lcm",
    "sample_lms",
    "sigma_to_half_log_snr",
    "to_d",
    "torch",
    "trange",
]
