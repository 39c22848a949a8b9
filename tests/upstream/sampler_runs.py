"""Runs every sampler of the ``comfy`` package that Python finds, on a small guided model, and saves the latents.

    python sampler_runs.py RESULTS_FILE NAME...

It uses only what ComfyUI has, so that it runs with a checkout of it as well. The file holds a dict of latents by (name, kind of model), or
the text of the error.
"""

import ast
import sys
from types import SimpleNamespace

import torch

from comfy.cli_args import args

args.cpu = True  # before the next import: ComfyUI looks for devices there

import comfy.model_sampling  # noqa: E402
import comfy.samplers  # noqa: E402

STEPS, SCALE, SEED = 12, 3.0, 5


class DiscreteEps(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
    """Stable Diffusion's schedule."""


class Flow(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
    """A rectified flow."""


class GuidedModel:
    """Two curved denoisers under classifier-free guidance, called as samplers call a model."""

    def __init__(self, sampling):
        patcher = SimpleNamespace(get_model_object=lambda name: sampling)
        self.sampling = sampling
        self.inner_model = SimpleNamespace(inner_model=SimpleNamespace(model_sampling=sampling), model_patcher=patcher)

    def _denoised(self, x, sigma, mean):
        level = sigma.view(-1, *[1] * (x.ndim - 1)).to(x)
        signal = 1 - level if isinstance(self.sampling, Flow) else torch.ones_like(level)
        pulled = 0.25 * signal / (signal**2 * 0.25 + level**2) * (x - signal * mean)
        return mean + pulled + 0.1 * torch.sin(3 * pulled)

    def __call__(self, x, sigma, model_options=None, **_):
        conditioned, unconditioned = (self._denoised(x, sigma, mean) for mean in (0.7, -0.3))
        result = unconditioned + SCALE * (conditioned - unconditioned)
        for function in (model_options or {}).get("sampler_post_cfg_function", ()):
            result = function({"denoised": result, "uncond_denoised": unconditioned, "cond_denoised": conditioned})
        return result


def run(name, sampling, scheduler):
    """What is sampled by *name* (a comma and ``option=value`` may follow), taken from where the sampler stopped."""
    name, *options = name.split(",")
    chosen = {key: ast.literal_eval(value) for key, value in (option.split("=") for option in options)}
    dtype = torch.float32 if name.startswith("uni_pc") else torch.float64  # ComfyUI's UniPC takes no others
    sigmas = comfy.samplers.calculate_sigmas(sampling, scheduler, STEPS).to(dtype)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3), dtype=dtype)
    x = sampling.noise_scaling(sigmas[0], noise, torch.zeros_like(noise), True)
    function = comfy.samplers.sampler_object(name).sampler_function
    torch.manual_seed(SEED)
    x = function(GuidedModel(sampling), x, sigmas, extra_args={"seed": SEED}, callback=None, disable=True, **chosen)
    return sampling.inverse_noise_scaling(sigmas[-1], x)


def main(results_file, names):
    """Run all and save."""
    results = {}
    for name in names:
        for kind, scheduler in ((DiscreteEps, "karras"), (DiscreteEps, "normal"), (Flow, "simple"), (Flow, "beta")):
            try:
                results[name, kind.__name__, scheduler] = run(name, kind(), scheduler)
            except Exception as error:
                results[name, kind.__name__, scheduler] = f"{type(error).__name__}: {error}"
    torch.save(results, results_file)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
