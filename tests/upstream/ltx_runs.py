"""Samples with LTX's models of the ``comfy`` package that Python finds, and saves the latents.

    python ltx_runs.py CASES_FILE RESULTS_FILE

A case is a dict with the file of the ``model``, ``positive`` and ``negative`` (conditionings), ``noise`` and ``latent`` (tensors, or lists
of those of the video and of the sound), ``cfg``, and perhaps ``noise_mask``, ``steps``, ``sampler``, ``lora`` (a file) and ``options``
(transformer_options). A case with ``vae`` (tensors of an autoencoder, with the ``metadata`` of their file) encodes ``inputs``, pictures or
sounds, and decodes ``latents``, the first of them also in tiles.
"""

import sys

import torch

from comfy.cli_args import args

args.cpu = True  # before the next import: ComfyUI looks for devices there

import comfy.sample  # noqa: E402
import comfy.sd  # noqa: E402
import comfy.utils  # noqa: E402
from comfy.nested_tensor import NestedTensor  # noqa: E402


def nested(value):
    """A list as several latents in one."""
    return NestedTensor(value) if isinstance(value, list) else value


def autoencoded(case):
    """Latents of the inputs, then what comes of latents, drawing the same numbers each time."""
    vae, found = comfy.sd.VAE(sd=dict(case["vae"]), metadata=case["metadata"]), []
    for call, values in ((vae.encode, case["inputs"]), (vae.decode, case["latents"])):
        for value in values:
            torch.manual_seed(3)
            found.append(call(value))
    if case["latents"][0].ndim == 5:
        torch.manual_seed(3)
        found.append(vae.decode_tiled(case["latents"][0], tile_x=4, tile_y=4, overlap=1, tile_t=3, overlap_t=1))
    return found


def run(case):
    """The last latents of *case*, as a list."""
    if "vae" in case:
        return autoencoded(case)
    model = comfy.sd.load_diffusion_model(case["model"], model_options=case.get("model_options", {}))
    if "lora" in case:
        model, _ = comfy.sd.load_lora_for_models(model, None, comfy.utils.load_torch_file(case["lora"]), 0.8, 0)
    model.model_options.setdefault("transformer_options", {}).update(case.get("options", {}))
    latent = comfy.sample.sample(
        model,
        nested(case["noise"]),
        case.get("steps", 2),
        case["cfg"],
        case.get("sampler", "euler"),
        "simple",
        case["positive"],
        case["negative"],
        nested(case["latent"]),
        noise_mask=nested(case.get("noise_mask")),
        disable_pbar=True,
        seed=1,
    )
    return latent.unbind() if latent.is_nested else [latent]


def main(cases_file, results_file):
    """Run all and save."""
    with torch.inference_mode():
        torch.save({name: run(case) for name, case in torch.load(cases_file).items()}, results_file)


if __name__ == "__main__":
    main(*sys.argv[1:])
