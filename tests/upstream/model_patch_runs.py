"""Samples with model patches of the ``comfy_extras`` package that Python finds, and saves the latents.

    python model_patch_runs.py CASES_FILE RESULTS_FILE

It uses only what ComfyUI has, so that it runs with a checkout of it as well, whose loader takes real sizes only and is told the small ones.
CASES_FILE holds {name: case}; a case is a dict with ``family`` (a name in ``supported_models``), ``config``, ``tensors``, ``positive``,
``negative``, ``cfg``, ``latent``, ``noise``, and perhaps a ``patch`` (a file) with its ``node`` (the class) and ``inputs``.
"""

import functools
import sys
import types

import torch

from comfy.cli_args import args

args.cpu = True  # before the next import: ComfyUI looks for devices there

import comfy.model_patcher  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.supported_models  # noqa: E402
import folder_paths  # noqa: E402
from comfy_extras import nodes_model_patch as nodes  # noqa: E402

BLOCKWISE, STYLE, FUN = "QwenImageBlockWiseControlNet", "SigLIPMultiFeatProjModel", "ZImage_Control"


class Autoencoder:
    """Encodes each 8 x 8 pixels as 16 numbers, for *latent_dim* 3 with a dimension of frames."""

    latent_channels, source_name = 16, "vae.safetensors"

    def __init__(self, latent_dim):
        self.latent_dim = latent_dim

    def spacial_compression_encode(self):
        return 8

    def encode(self, pictures):
        grid = torch.nn.functional.avg_pool2d(pictures.movedim(-1, 1), 8)
        latent = torch.cat([torch.sin(grid * (number + 2)) for number in range(6)], dim=1)[:, :16]
        return latent.unsqueeze(2) if self.latent_dim == 3 else latent


def know_small_sizes(sizes):
    """Let ComfyUI's loader build networks of *sizes*, by class; ours reads them from the file."""
    if not hasattr(nodes, BLOCKWISE):
        return
    for name in (BLOCKWISE, STYLE):
        setattr(nodes, name, functools.partial(getattr(nodes, name), **sizes[name]))
    own = nodes.comfy.ldm.lumina.controlnet.ZImage_Control

    class Small(own):
        def __init__(self, **given):
            super().__init__(**{**sizes[FUN], **given})

    nodes.comfy.ldm.lumina.controlnet.ZImage_Control = Small


def patched(case, model):
    """*model* with the patch of *case*."""
    inputs = dict(case["inputs"])
    if "latent_dim" in case:
        inputs["vae"] = Autoencoder(case["latent_dim"])
    if "states" in case:
        states = case["states"]
        inputs["clip_vision_output"] = types.SimpleNamespace(all_hidden_states=states, penultimate_hidden_states=states[:, -2])
    patch = nodes.ModelPatchLoader().load_model_patch(case["patch"])[0]
    node = getattr(nodes, case["node"])()
    return getattr(node, node.FUNCTION)(model, patch, **inputs)[0]


def run(case):
    """The last latent of *case*."""
    config = getattr(comfy.supported_models, case["family"])(dict(case["config"]))
    config.set_inference_dtype(torch.float32, None)
    cpu = torch.device("cpu")
    model = config.get_model(case["tensors"], "", device=cpu)
    model.load_model_weights(dict(case["tensors"]), "")
    patcher = comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)
    if "patch" in case:
        patcher = patched(case, patcher)
    sides = case["positive"], case["negative"]
    return comfy.sample.sample(patcher, case["noise"], 2, case["cfg"], "euler", "simple", *sides, case["latent"], disable_pbar=True, seed=1)


def main(cases_file, results_file):
    """Run all and save."""
    folder_paths.get_full_path_or_raise = lambda kind, name: name
    cases = torch.load(cases_file)
    know_small_sizes(cases.pop("sizes"))
    with torch.inference_mode():
        torch.save({name: run(case) for name, case in cases.items()}, results_file)


if __name__ == "__main__":
    main(*sys.argv[1:])
