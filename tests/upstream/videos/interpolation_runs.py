"""Makes frames between others with the nodes of the ``comfy_extras`` that Python finds, and saves them.

    python interpolation_runs.py CASES_FILE RESULTS_FILE

A case has a ``model`` (a file), ``images`` and a ``multiplier``; ``sizes`` are those of FILM's network, which ComfyUI
does not read off files.
"""

import functools
import os
import sys

import torch

from comfy.cli_args import args

args.cpu = True  # before the next import: ComfyUI looks for devices there

import folder_paths  # noqa: E402
from comfy_extras import nodes_frame_interpolation as nodes  # noqa: E402


def run(case):
    """The frames of *case*."""
    folder, name = os.path.split(case["model"])
    folder_paths.add_model_folder_path("frame_interpolation", folder)
    network = vars(nodes).get("FILMNet")
    if network is not None and "sizes" in case:
        nodes.FILMNet = functools.partial(network, **case["sizes"])
    model = nodes.FrameInterpolationModelLoader.execute(name).args[0]
    made = nodes.FrameInterpolate.execute(model, case["images"], case["multiplier"]).args[0]
    if network is not None:
        nodes.FILMNet = network
    return made


def main(cases_file, results_file):
    """Run all and save."""
    with torch.inference_mode():
        torch.save({name: run(case) for name, case in torch.load(cases_file).items()}, results_file)


if __name__ == "__main__":
    main(*sys.argv[1:])
