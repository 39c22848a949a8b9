"""The names node packs import for samplers and noise levels. Packs also add functions here: ``comfy.samplers`` looks them up by name."""

from comfy.lazy_import import lazy_module
from comfy.sampling.autoregressive import sample_ar_video
from comfy.sampling.cfg_pp import (
    sample_dpmpp_2m_cfg_pp,
    sample_dpmpp_2s_ancestral_cfg_pp,
    sample_euler_ancestral_cfg_pp,
    sample_euler_cfg_pp,
)
from comfy.sampling.deis import sample_deis
from comfy.sampling.dpm_solver import PIDStepSizeController, sample_dpm_adaptive, sample_dpm_fast
from comfy.sampling.dpm_solver_pp import sample_dpmpp_2m, sample_dpmpp_2s_ancestral, sample_dpmpp_sde, sample_dpmpp_sde_gpu
from comfy.sampling.dpm_solver_pp_sde import (
    sample_dpmpp_2m_sde,
    sample_dpmpp_2m_sde_gpu,
    sample_dpmpp_2m_sde_heun,
    sample_dpmpp_2m_sde_heun_gpu,
    sample_dpmpp_3m_sde,
    sample_dpmpp_3m_sde_gpu,
)
from comfy.sampling.er_sde import sample_er_sde
from comfy.sampling.euler import sample_dpm_2, sample_dpm_2_ancestral, sample_euler, sample_euler_ancestral, sample_heun, sample_heunpp2
from comfy.sampling.exponential_stages import sample_exp_heun_2_x0, sample_exp_heun_2_x0_sde, sample_seeds_2, sample_seeds_3
from comfy.sampling.multistep import (
    linear_multistep_coeff,
    sample_gradient_estimation,
    sample_gradient_estimation_cfg_pp,
    sample_ipndm,
    sample_ipndm_v,
    sample_lms,
)
from comfy.sampling.noise import BatchedBrownianTree, BrownianTreeNoiseSampler, default_noise_sampler
from comfy.sampling.one_step_chains import DDPMSampler_step, generic_step_sampler, sample_ddpm, sample_lcm
from comfy.sampling.res_multistep import (
    res_multistep,
    sample_res_multistep,
    sample_res_multistep_ancestral,
    sample_res_multistep_ancestral_cfg_pp,
    sample_res_multistep_cfg_pp,
)
from comfy.sampling.sa_solver import sample_sa_solver, sample_sa_solver_pece
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
    "PIDStepSizeController",
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
    "res_multistep",
    "sample_ar_video",
    "sample_ddpm",
    "sample_deis",
    "sample_dpm_2",
    "sample_dpm_2_ancestral",
    "sample_dpm_adaptive",
    "sample_dpm_fast",
    "sample_dpmpp_2m",
    "sample_dpmpp_2m_cfg_pp",
    "sample_dpmpp_2m_sde",
    "sample_dpmpp_2m_sde_gpu",
    "sample_dpmpp_2m_sde_heun",
    "sample_dpmpp_2m_sde_heun_gpu",
    "sample_dpmpp_2s_ancestral",
    "sample_dpmpp_2s_ancestral_cfg_pp",
    "sample_dpmpp_3m_sde",
    "sample_dpmpp_3m_sde_gpu",
    "sample_dpmpp_sde",
    "sample_dpmpp_sde_gpu",
    "sample_er_sde",
    "sample_euler",
    "sample_euler_ancestral",
    "sample_euler_ancestral_cfg_pp",
    "sample_euler_cfg_pp",
    "sample_exp_heun_2_x0",
    "sample_exp_heun_2_x0_sde",
    "sample_gradient_estimation",
    "sample_gradient_estimation_cfg_pp",
    "sample_heun",
    "sample_heunpp2",
    "sample_ipndm",
    "sample_ipndm_v",
    "sample_lcm",
    "sample_lms",
    "sample_res_multistep",
    "sample_res_multistep_ancestral",
    "sample_res_multistep_ancestral_cfg_pp",
    "sample_res_multistep_cfg_pp",
    "sample_sa_solver",
    "sample_sa_solver_pece",
    "sample_seeds_2",
    "sample_seeds_3",
    "sigma_to_half_log_snr",
    "to_d",
    "torch",
    "trange",
]
