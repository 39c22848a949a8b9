"""Noise schedules and what a model's output means: between sigma (noise level), time step and denoised picture.

A model's sampling object mixes a *prediction* class (how input and output are scaled) with a *schedule* class (which
sigmas exist). Sigma is the noise standard deviation in units of the data (Karras et al. 2022, arXiv:2206.00364).
"""

import math
from typing import Any

import torch

from comfy.beta_schedules import make_beta_schedule, rescale_zero_terminal_snr_sigmas

BEYOND_EVERY_SIGMA = 999999999.9  # what 0 % of the schedule means: before any noise was removed


def reshape_sigma(sigma: torch.Tensor, noise_dim: int) -> torch.Tensor:
    """View *sigma* (one per batch item, or one for all) so that it broadcasts over a tensor of *noise_dim* dimensions."""
    return sigma.view(()) if sigma.nelement() == 1 else sigma.view(sigma.shape[0], *(1,) * (noise_dim - 1))


def time_snr_shift(alpha: float, t: Any) -> Any:
    """Shift flow time *t* in [0, 1] towards noise by the factor *alpha*."""
    return t if alpha == 1.0 else alpha * t / (1 + (alpha - 1) * t)


def flux_time_shift(mu: float, sigma: float, t: Any) -> Any:
    """Flux's time shift, exponential in *mu*."""
    return math.exp(mu) / (math.exp(mu) + (1 / t - 1) ** sigma)


class EPS:
    """The model predicts the noise and sees its input scaled to unit variance."""

    sigma_data = 1.0

    def calculate_input(self, sigma: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The network's input for a noisy latent."""
        return noise / (reshape_sigma(sigma, noise.ndim) ** 2 + self.sigma_data**2) ** 0.5

    def calculate_denoised(self, sigma: torch.Tensor, model_output: torch.Tensor, model_input: torch.Tensor) -> torch.Tensor:
        """The denoised latent for the network's output; *model_input* is the unscaled noisy latent."""
        return model_input - model_output * reshape_sigma(sigma, model_output.ndim)

    def noise_scaling(
        self, sigma: torch.Tensor, noise: torch.Tensor, latent_image: torch.Tensor, max_denoise: bool = False
    ) -> torch.Tensor:
        """The noisy latent to start from; *max_denoise* says that no signal of the picture is left at this sigma."""
        level = reshape_sigma(sigma, noise.ndim)
        scaled = noise * (torch.sqrt(1.0 + level**2.0) if max_denoise else level)
        scaled += latent_image
        return scaled

    def inverse_noise_scaling(self, sigma: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        """The picture part of a sampler's last latent."""
        return latent


class V_PREDICTION(EPS):  # noqa: N801 - the name node packs import
    """The model predicts velocity (Salimans and Ho 2022, arXiv:2202.00512)."""

    def calculate_denoised(self, sigma: torch.Tensor, model_output: torch.Tensor, model_input: torch.Tensor) -> torch.Tensor:
        level = reshape_sigma(sigma, model_output.ndim)
        variance = level**2 + self.sigma_data**2
        return model_input * self.sigma_data**2 / variance - model_output * level * self.sigma_data / variance**0.5


class EDM(V_PREDICTION):
    """Karras et al.'s preconditioning: velocity with the opposite sign."""

    def calculate_denoised(self, sigma: torch.Tensor, model_output: torch.Tensor, model_input: torch.Tensor) -> torch.Tensor:
        level = reshape_sigma(sigma, model_output.ndim)
        variance = level**2 + self.sigma_data**2
        return model_input * self.sigma_data**2 / variance + model_output * level * self.sigma_data / variance**0.5


class X0(EPS):
    """The model predicts the denoised latent."""

    def calculate_denoised(self, sigma: torch.Tensor, model_output: torch.Tensor, model_input: torch.Tensor) -> torch.Tensor:
        """The output itself."""
        return model_output


class IMG_TO_IMG(X0):  # noqa: N801 - the name node packs import
    """The model maps its unscaled input to a picture."""

    def calculate_input(self, sigma: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The input itself."""
        return noise


class CONST:
    """Rectified flow: the model predicts the direction from picture to noise (Liu et al. 2022, arXiv:2209.03003)."""

    def calculate_input(self, sigma: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The input itself."""
        return noise

    def calculate_denoised(self, sigma: torch.Tensor, model_output: torch.Tensor, model_input: torch.Tensor) -> torch.Tensor:
        return model_input - model_output * reshape_sigma(sigma, model_output.ndim)

    def noise_scaling(
        self, sigma: torch.Tensor, noise: torch.Tensor, latent_image: torch.Tensor, max_denoise: bool = False
    ) -> torch.Tensor:
        """The straight line between picture and noise at *sigma*."""
        level = reshape_sigma(sigma, noise.ndim)
        return level * (getattr(self, "noise_scale", 1.0) * noise) + (1.0 - level) * latent_image

    def inverse_noise_scaling(self, sigma: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        """The picture part of a sampler's last latent."""
        return latent / (1.0 - reshape_sigma(sigma, latent.ndim))


class COSMOS_RFLOW(EPS):  # noqa: N801 - the name node packs import
    """Rectified flow told in levels of noise beside the picture (Cosmos): sigma / (sigma + 1) is the share of noise."""

    def calculate_input(self, sigma: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The latent on the straight line between picture and noise."""
        return noise * (1.0 - self._share(sigma, noise))

    def calculate_denoised(self, sigma: torch.Tensor, model_output: torch.Tensor, model_input: torch.Tensor) -> torch.Tensor:
        share = self._share(sigma, model_output)
        return model_input * (1.0 - share) - model_output * share

    @staticmethod
    def _share(sigma: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return reshape_sigma(sigma / (sigma + 1.0), like.ndim)

    def noise_scaling(
        self, sigma: torch.Tensor, noise: torch.Tensor, latent_image: torch.Tensor, max_denoise: bool = False
    ) -> torch.Tensor:
        """The picture with noise of deviation *sigma* added."""
        return noise * reshape_sigma(sigma, noise.ndim) + latent_image


class IMG_TO_IMG_FLOW(CONST):  # noqa: N801 - the name node packs import
    """A flow from one picture to another: no noise is added, and the model predicts the end."""

    def calculate_denoised(self, sigma: torch.Tensor, model_output: torch.Tensor, model_input: torch.Tensor) -> torch.Tensor:
        """The output itself."""
        return model_output

    def noise_scaling(
        self, sigma: torch.Tensor, noise: torch.Tensor, latent_image: torch.Tensor, max_denoise: bool = False
    ) -> torch.Tensor:
        """The picture itself."""
        return latent_image

    def inverse_noise_scaling(self, sigma: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        """The model's pictures count from white."""
        return 1.0 - latent


def _settings(model_config: Any) -> dict[str, Any]:
    return {} if model_config is None else model_config.sampling_settings


class _SigmaTable(torch.nn.Module):
    """A schedule that holds its sigmas, ascending, in the buffer ``sigmas``."""

    sigmas: torch.Tensor
    log_sigmas: torch.Tensor

    @property
    def sigma_min(self) -> torch.Tensor:
        """The smallest sigma (scalar tensor)."""
        return self.sigmas[0]

    @property
    def sigma_max(self) -> torch.Tensor:
        """The largest sigma (scalar tensor)."""
        return self.sigmas[-1]


class ModelSamplingDiscrete(_SigmaTable):
    """A thousand discrete steps from a beta schedule (DDPM)."""

    def __init__(self, model_config: Any = None, zsnr: bool | None = None) -> None:
        super().__init__()
        settings = _settings(model_config)
        self.sigma_data = 1.0
        self._register_schedule(
            beta_schedule=settings.get("beta_schedule", "linear"),
            timesteps=settings.get("timesteps", 1000),
            linear_start=settings.get("linear_start", 0.00085),
            linear_end=settings.get("linear_end", 0.012),
            zsnr=settings.get("zsnr", False) if zsnr is None else zsnr,
        )

    def _register_schedule(
        self,
        given_betas: torch.Tensor | None = None,
        beta_schedule: str = "linear",
        timesteps: int = 1000,
        linear_start: float = 1e-4,
        linear_end: float = 2e-2,
        cosine_s: float = 8e-3,
        zsnr: bool = False,
    ) -> None:
        betas = given_betas
        if betas is None:
            betas = make_beta_schedule(beta_schedule, timesteps, linear_start, linear_end, cosine_s)
        alpha_bar = torch.cumprod(1.0 - betas, dim=0)
        self.num_timesteps = len(betas)
        self.linear_start, self.linear_end, self.zsnr = linear_start, linear_end, zsnr
        sigmas = ((1 - alpha_bar) / alpha_bar) ** 0.5
        self.set_sigmas(rescale_zero_terminal_snr_sigmas(sigmas) if zsnr else sigmas)

    def set_sigmas(self, sigmas: torch.Tensor) -> None:
        """Replace the schedule by *sigmas*, ascending, one per step."""
        self.register_buffer("sigmas", sigmas.float())
        self.register_buffer("log_sigmas", sigmas.log().float())

    def timestep(self, sigma: torch.Tensor) -> torch.Tensor:
        """The step whose sigma is nearest on a log scale."""
        distances = (sigma.log().to(self.log_sigmas.device) - self.log_sigmas[:, None]).abs()
        return distances.argmin(dim=0).view(sigma.shape).to(sigma.device)

    def sigma(self, timestep: torch.Tensor) -> torch.Tensor:
        """The sigma at a step; between steps interpolated on a log scale."""
        place = timestep.float().to(self.log_sigmas.device).clamp(min=0, max=len(self.sigmas) - 1)
        fraction = place.frac()
        below, above = self.log_sigmas[place.floor().long()], self.log_sigmas[place.ceil().long()]
        return ((1 - fraction) * below + fraction * above).exp().to(timestep.device)

    def percent_to_sigma(self, percent: float) -> float:
        """The sigma when *percent* (0 to 1) of the sampling is done."""
        if percent <= 0.0:
            return BEYOND_EVERY_SIGMA
        return 0.0 if percent >= 1.0 else self.sigma(torch.tensor((1.0 - percent) * 999.0)).item()


class ModelSamplingDiscreteEDM(ModelSamplingDiscrete):
    """Discrete sigmas whose time input is a quarter of log sigma."""

    def timestep(self, sigma: torch.Tensor) -> torch.Tensor:
        """The model's time input for *sigma*."""
        return 0.25 * sigma.log()

    def sigma(self, timestep: torch.Tensor) -> torch.Tensor:
        """The sigma for a time input."""
        return (timestep / 0.25).exp()


class ModelSamplingContinuousEDM(_SigmaTable):
    """Continuous sigmas between two bounds; the time input is a quarter of log sigma."""

    def __init__(self, model_config: Any = None) -> None:
        super().__init__()
        settings = _settings(model_config)
        self.set_parameters(settings.get("sigma_min", 0.002), settings.get("sigma_max", 120.0), settings.get("sigma_data", 1.0))

    def set_parameters(self, sigma_min: float, sigma_max: float, sigma_data: float) -> None:
        """Set the bounds and the data's deviation; a thousand log-spaced sigmas serve schedulers that want a table."""
        self.sigma_data = sigma_data
        table = torch.linspace(math.log(sigma_min), math.log(sigma_max), 1000).exp()
        self.register_buffer("sigmas", table)
        self.register_buffer("log_sigmas", table.log())

    def timestep(self, sigma: torch.Tensor) -> torch.Tensor:
        """The model's time input for *sigma*."""
        return 0.25 * sigma.log()

    def sigma(self, timestep: torch.Tensor) -> torch.Tensor:
        """The sigma for a time input."""
        return (timestep / 0.25).exp()

    def percent_to_sigma(self, percent: float) -> float:
        """The sigma when *percent* (0 to 1) of the log range is done."""
        if percent <= 0.0:
            return BEYOND_EVERY_SIGMA
        if percent >= 1.0:
            return 0.0
        low = math.log(self.sigma_min)
        return math.exp((math.log(self.sigma_max) - low) * (1.0 - percent) + low)


class ModelSamplingCosmosRFlow(ModelSamplingContinuousEDM):
    """Continuous sigmas whose time input is the share of noise, sigma / (sigma + 1)."""

    def timestep(self, sigma: torch.Tensor) -> torch.Tensor:
        """The model's time input for *sigma*."""
        return sigma / (sigma + 1.0)

    def sigma(self, timestep: Any) -> Any:
        """The sigma for a time input, at most the largest."""
        largest = self.sigma_max
        return largest if timestep >= largest / (largest + 1.0) else timestep / (1.0 - timestep)


class ModelSamplingContinuousV(ModelSamplingContinuousEDM):
    """Continuous sigmas with the velocity parameterisation's angle as time input."""

    def timestep(self, sigma: torch.Tensor) -> torch.Tensor:
        """The model's time input for *sigma*."""
        return sigma.atan() / math.pi * 2

    def sigma(self, timestep: torch.Tensor) -> torch.Tensor:
        """The sigma for a time input."""
        return (timestep * math.pi / 2).tan()


class ModelSamplingDiscreteFlow(_SigmaTable):
    """Rectified flow over shifted time; sigma is the share of noise, 0 to 1."""

    def __init__(self, model_config: Any = None) -> None:
        super().__init__()
        settings = _settings(model_config)
        self.set_noise_scale(settings.get("noise_scale", 1.0))
        self.set_parameters(shift=settings.get("shift", 1.0), multiplier=settings.get("multiplier", 1000))

    def set_noise_scale(self, noise_scale: float) -> None:
        """Set the standard deviation of the noise that the model was trained with."""
        self.noise_scale = float(noise_scale)

    def set_parameters(self, shift: float = 1.0, timesteps: int = 1000, multiplier: float = 1000) -> None:
        """Set the shift towards noise, the table's length, and the scale of the model's time input."""
        self.shift, self.multiplier = shift, multiplier
        self.register_buffer("sigmas", self.sigma(torch.arange(1, timesteps + 1) / timesteps * multiplier))

    def timestep(self, sigma: torch.Tensor) -> torch.Tensor:
        """The model's time input for *sigma*."""
        return sigma * self.multiplier

    def sigma(self, timestep: torch.Tensor) -> torch.Tensor:
        """The sigma for a time input."""
        return time_snr_shift(self.shift, timestep / self.multiplier)

    def percent_to_sigma(self, percent: float) -> float:
        """The sigma when *percent* (0 to 1) of the sampling is done."""
        if percent <= 0.0:
            return 1.0
        return 0.0 if percent >= 1.0 else time_snr_shift(self.shift, 1.0 - percent)


class ModelSamplingAV(ModelSamplingDiscreteFlow):
    """Rectified flow of a video with sound, packed together, where the sound has a shift of its own (``audio_shift``; None: the same).

    The sound is carried ``audio_scale`` times as large, so that its straight line from sound to noise, in the video's time, ends there.
    """

    def __init__(self, model_config: Any = None) -> None:
        super().__init__(model_config)
        self.audio_shift: float | None = _settings(model_config).get("audio_shift")

    def set_parameters(  # type: ignore[override]
        self, shift: float = 1.0, audio_shift: float | None = None, timesteps: int = 1000, multiplier: float = 1000
    ) -> None:
        """Set both shifts, the table's length, and the scale of the model's time input."""
        self.audio_shift = audio_shift
        super().set_parameters(shift=shift, timesteps=timesteps, multiplier=multiplier)

    @property
    def audio_scale(self) -> float:
        """How many times as large as the network's the sampler's latent of the sound is."""
        return 1.0 if self.audio_shift is None else self.shift / self.audio_shift


class ModelSamplingFlux(_SigmaTable):
    """Rectified flow with Flux's time shift; the time input is sigma itself."""

    def __init__(self, model_config: Any = None) -> None:
        super().__init__()
        self.set_parameters(shift=_settings(model_config).get("shift", 1.15))

    def set_parameters(self, shift: float = 1.15, timesteps: int = 10000) -> None:
        """Set the shift and the table's length."""
        self.shift = shift
        self.register_buffer("sigmas", self.sigma(torch.arange(1, timesteps + 1) / timesteps))

    def timestep(self, sigma: torch.Tensor) -> torch.Tensor:
        """Sigma itself."""
        return sigma

    def sigma(self, timestep: Any) -> Any:
        """The shifted sigma for an unshifted time."""
        return flux_time_shift(self.shift, 1.0, timestep)

    def percent_to_sigma(self, percent: float) -> float:
        """The sigma when *percent* (0 to 1) of the sampling is done."""
        if percent <= 0.0:
            return 1.0
        return 0.0 if percent >= 1.0 else flux_time_shift(self.shift, 1.0, 1.0 - percent)
