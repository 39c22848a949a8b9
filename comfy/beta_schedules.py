"""Variances that noise adds step by step, and schedules stretched so that nothing of the picture is left at their end."""

import math

import torch

LAST_ALPHA_BAR = 4.8973451890853435e-08  # keeps the terminal sigma finite when its signal is rescaled to zero


def rescale_zero_terminal_snr_sigmas(sigmas: torch.Tensor) -> torch.Tensor:
    """Stretch a schedule so that its last step holds no signal (Lin et al. 2023, arXiv:2305.08891, algorithm 1)."""
    signal = (1 / (sigmas * sigmas + 1)).sqrt()
    first, last = signal[0].clone(), signal[-1].clone()
    alpha_bar = ((signal - last) * (first / (first - last))) ** 2
    alpha_bar[-1] = LAST_ALPHA_BAR
    return ((1 - alpha_bar) / alpha_bar) ** 0.5


def make_beta_schedule(
    schedule: str, n_timestep: int, linear_start: float = 1e-4, linear_end: float = 2e-2, cosine_s: float = 8e-3
) -> torch.Tensor:
    """The variances added per step, float64: ``linear`` (in the square root), ``sqrt_linear``, ``sqrt``, ``cosine`` or, which is the same
    with its usual offset, ``squaredcos_cap_v2``.

    Raises ``ValueError`` for another name.
    """
    if schedule == "linear":
        return torch.linspace(linear_start**0.5, linear_end**0.5, n_timestep, dtype=torch.float64) ** 2
    if schedule in ("sqrt_linear", "sqrt"):
        betas = torch.linspace(linear_start, linear_end, n_timestep, dtype=torch.float64)
        return betas if schedule == "sqrt_linear" else betas**0.5
    if schedule == "squaredcos_cap_v2":
        schedule, cosine_s = "cosine", 8e-3
    if schedule == "cosine":
        times = torch.arange(n_timestep + 1, dtype=torch.float64) / n_timestep + cosine_s
        alpha_bar = torch.cos(times / (1 + cosine_s) * math.pi / 2) ** 2
        return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(0, 0.999)
    raise ValueError(f"unknown beta schedule {schedule!r}; known: linear, sqrt_linear, sqrt, cosine, squaredcos_cap_v2")
