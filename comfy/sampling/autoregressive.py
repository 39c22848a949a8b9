"""Making a video some frames at a time, each after those before it (Self-Forcing, arXiv:2506.08009; Causal Forcing).

Arguments: see ``solver_run``. Latents are B x channels x frames x height x width; models are flows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import comfy.utils
from comfy.lazy_import import lazy_module
from comfy.sampling.solver_run import SolverRun, without_gradients

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.sampling.protocols import Denoiser, SolverCallback

torch = lazy_module("torch")
causal = lazy_module("comfy.ldm.wan.ar_model")

SEEDS_OF_FRAMES = 1000  # between those of the noise of two runs of frames


@without_gradients
def sample_ar_video(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: SolverCallback | None = None,
    disable: bool | None = None,
    num_frame_per_block: int = 1,
) -> Tensor:
    """*num_frame_per_block* latent frames at a time: denoised, made noisy again by fresh noise, and so on down to no noise.

    ``ar_config`` of the transformer options may hold ``initial_latent``, frames that the video begins with. Raises ``ValueError`` for
    latents of pictures and for models that do not know of frames before.
    """
    if x.ndim != 5:
        raise ValueError(f"the sampler ar_video makes videos; the latent has {x.ndim} axes, and not batch, channels, frames, height, width")
    network: Any = model.inner_model.inner_model
    if not isinstance(network.diffusion_model, causal.CausalWanModel):
        raise ValueError(
            f"the sampler ar_video needs a model that makes frames after frames (Causal Forcing, Self-Forcing), and not {network}; "
            "choose another sampler, or a file whose metadata says causal_ar"
        )
    run = SolverRun(model, x, sigmas, extra_args, callback, disable)
    model_options = run.extra_args.get("model_options") or {}
    options = model_options.get("transformer_options") or {}
    before = causal.FramesBefore(x.shape[2])
    run.extra_args = {**run.extra_args, "model_options": {**model_options, "transformer_options": {**options, causal.STATE: before}}}
    made = torch.zeros_like(x)
    first = (options.get("ar_config") or {}).get("initial_latent")
    if first is not None:
        first = network.process_latent_in(first).to(x)[:, :, : x.shape[2]].expand(len(x), -1, -1, -1, -1)
        _keep(run, before, made, first)
    starts = range(before.made, x.shape[2], num_frame_per_block)
    for number in comfy.utils.model_trange(len(starts), disable=disable):
        noisy = x[:, :, starts[number] : starts[number] + num_frame_per_block]
        _keep(run, before, made, _denoised(run, noisy, number, len(starts)))
    return made


def _keep(run: SolverRun, before: Any, made: Tensor, frames: Tensor) -> None:
    """Put *frames* where those after the last belong, and let the network see them without noise, so that it remembers them."""
    made[:, :, before.made : before.made + frames.shape[2]] = frames
    run.denoise(frames, run.sigmas.new_zeros(()))
    before.keep(frames.shape[2])


def _denoised(run: SolverRun, noisy: Tensor, number: int, count: int) -> Tensor:
    """The frames that begin as *noisy*, the run *number* of *count*."""
    steps = len(run.sigmas) - 1
    seed = (run.seed or 0) + number * SEEDS_OF_FRAMES
    for step in range(steps):
        denoised = run.denoise(noisy, run.sigmas[step])
        run.report((number * steps + step) // count, noisy, denoised, run.sigmas[step])
        level = run.sigmas[step + 1]
        if level == 0:
            return denoised
        generator = torch.Generator(device=denoised.device).manual_seed(seed + step)
        noise = torch.randn(denoised.shape, generator=generator, device=denoised.device, dtype=denoised.dtype)
        noisy = (1.0 - level) * denoised + level * noise
    return noisy
