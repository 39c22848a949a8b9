"""Samples with MiniMax H3's networks and autoencoders of the ``comfy`` package that Python finds, and saves what comes of it.

    python minimax_runs.py CASES_FILE RESULTS_FILE

Cases are as in ``transformer_runs.py``, but for ``noise``, ``latent`` and ``noise_mask``, which are lists: a video's and a sound's.
"""

import sys

import torch

from comfy.cli_args import args

args.cpu = True  # before the next import: ComfyUI looks for devices there

import comfy.sample  # noqa: E402
import comfy.sd  # noqa: E402
from comfy.nested_tensor import NestedTensor  # noqa: E402


def sampled(case):
    """The last latents of *case*, the video's and the sound's; steps in the order in which they were reported before them."""
    model = comfy.sd.load_diffusion_model(case["model"], model_options=case.get("model_options", {}))
    if "shifts" in case:
        from comfy_extras.nodes_minimax_h3 import MiniMaxH3SigmaShift

        model = MiniMaxH3SigmaShift.execute(model, *case["shifts"]).args[0]
    steps = []
    mask = case.get("noise_mask")
    latent = comfy.sample.sample(
        model,
        NestedTensor(case["noise"]),
        case.get("steps", 2),
        case.get("cfg", 1.0),
        case.get("sampler", "euler"),
        "simple",
        case["positive"],
        case["negative"],
        NestedTensor(case["latent"]),
        noise_mask=None if mask is None else NestedTensor(mask),
        callback=lambda step, x0, x, total: steps.extend(x0.unbind()),
        disable_pbar=True,
        seed=1,
    )
    return [*steps, *latent.unbind()]


def main(cases_file, results_file):
    """Run all and save."""
    with torch.inference_mode():
        torch.save({name: sampled(case) for name, case in torch.load(cases_file).items()}, results_file)


if __name__ == "__main__":
    main(*sys.argv[1:])
