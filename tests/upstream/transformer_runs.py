"""Samples with transformer models of the ``comfy`` package that Python finds, and saves the latents.

    python transformer_runs.py CASES_FILE RESULTS_FILE

It uses only what ComfyUI has, so that it runs with a checkout of it as well. CASES_FILE holds {name: case}; a case is a dict with the file
of the ``model``, ``positive`` (a conditioning), ``latent``, ``noise``, and perhaps ``negative``, ``cfg``, ``lora`` (a file), ``strength``,
``model_options``, ``steps``, ``sampler``, ``scheduler``, ``denoise``. The results are latents by name.
"""

import sys

import torch

from comfy.cli_args import args

args.cpu = True  # before the next import: ComfyUI looks for devices there

import comfy.sample  # noqa: E402
import comfy.sd  # noqa: E402
import comfy.utils  # noqa: E402


def run(case):
    """The last latent of *case*."""
    model = comfy.sd.load_diffusion_model(case["model"], model_options=case.get("model_options", {}))
    if "lora" in case:
        lora = comfy.utils.load_torch_file(case["lora"], safe_load=True)
        model, _ = comfy.sd.load_lora_for_models(model, None, lora, case.get("strength", 1.0), 0)
    positive = case["positive"]
    return comfy.sample.sample(
        model,
        case["noise"],
        case.get("steps", 2),
        case.get("cfg", 1.0),
        case.get("sampler", "euler"),
        case.get("scheduler", "simple"),
        positive,
        case.get("negative", positive),
        case["latent"],
        denoise=case.get("denoise", 1.0),
        disable_pbar=True,
        seed=1,
    )


def main(cases_file, results_file):
    """Run all and save."""
    with torch.inference_mode():
        torch.save({name: run(case) for name, case in torch.load(cases_file).items()}, results_file)


if __name__ == "__main__":
    main(*sys.argv[1:])
