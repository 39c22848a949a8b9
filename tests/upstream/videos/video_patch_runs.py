"""Uses model patches of video models with the ``comfy_extras`` that Python finds, and saves what comes of them.

    python video_patch_runs.py CASES_FILE RESULTS_FILE

A case of Uni3C has a ``model`` (a file of Wan), ``patch`` (a file), ``inputs`` of the node, ``positive``, ``negative``, ``cfg``, ``noise``.
One of the duration head has a ``patch``, ``tokens`` (those of videos and sound side by side, ``width`` of them of videos) and ``settings``.
"""

import sys
import types

import torch

from comfy.cli_args import args

args.cpu = True  # before the next import: ComfyUI looks for devices there

import comfy.model_management  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.sd  # noqa: E402
import folder_paths  # noqa: E402
from comfy_extras import nodes_lt, nodes_model_patch  # noqa: E402


class Autoencoder:
    """Encodes each 8 x 8 pixels of one frame of four as 16 numbers."""

    latent_channels, latent_dim, source_name = 16, 3, "vae.safetensors"

    def spacial_compression_encode(self):
        return 8

    def temporal_compression_decode(self):
        return 4

    def encode(self, frames):
        grid = torch.nn.functional.avg_pool2d(frames[::4].movedim(-1, 1), 8)
        return torch.cat([torch.sin(grid * (number + 2)) for number in range(6)], dim=1)[:, :16].movedim(0, 1)[None]


def told(case):
    """Frames and seconds of *case* for each of its settings."""
    head = nodes_model_patch.ModelPatchLoader().load_model_patch(case["patch"])[0]
    network = types.SimpleNamespace(cross_attention_dim=case["width"], preprocess_text_embeds=lambda tokens, unprocessed: tokens)
    base = types.SimpleNamespace(diffusion_model=network, get_dtype_inference=lambda: torch.float32)
    model = types.SimpleNamespace(model=base, load_device=torch.device("cpu"))
    load, comfy.model_management.load_models_gpu = comfy.model_management.load_models_gpu, lambda *given, **settings: None
    found = [nodes_lt.LTXVDurationPredictor.execute(model, [[case["tokens"], {}]], head, *given).args for given in case["settings"]]
    comfy.model_management.load_models_gpu = load
    return torch.tensor(found, dtype=torch.float64)


def run(case):
    """What comes of *case*."""
    if "tokens" in case:
        return told(case)
    model = comfy.sd.load_diffusion_model(case["model"], model_options=case.get("model_options", {}))
    if "patch" in case:
        patch = nodes_model_patch.ModelPatchLoader().load_model_patch(case["patch"])[0]
        model = nodes_model_patch.WanUni3CControlnetApply().apply_patch(model, patch, Autoencoder(), **case["inputs"])[0]
    sides, latent = (case["positive"], case["negative"]), torch.zeros_like(case["noise"])
    return comfy.sample.sample(model, case["noise"], 3, case["cfg"], "euler", "simple", *sides, latent, disable_pbar=True, seed=1)


def main(cases_file, results_file):
    """Run all and save."""
    folder_paths.get_full_path_or_raise = lambda kind, name: name
    with torch.inference_mode():
        torch.save({name: run(case) for name, case in torch.load(cases_file).items()}, results_file)


if __name__ == "__main__":
    main(*sys.argv[1:])
