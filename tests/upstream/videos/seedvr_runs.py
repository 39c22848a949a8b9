"""Samples with SeedVR2 of the tree that Python finds, decodes and encodes with its autoencoder, and runs its nodes.

    python seedvr_runs.py CASES_FILE RESULTS_FILE

ComfyUI knows the real sizes alone: a case with ``file`` (a network) has ``config``, which is told there in place of what is detected, and a
case with ``vae`` (tensors) the ``widths`` of its levels. A case with ``node`` has its arguments in ``given``.
"""

import importlib.util
import sys

import torch

from comfy.cli_args import args

args.cpu = True  # before the next import: ComfyUI looks for devices there

import comfy.model_detection  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.sd  # noqa: E402

OURS = importlib.util.find_spec("comfy.made_by") is not None


def loaded(case):
    """The diffusion model of *case*."""
    if not OURS:
        import comfy.ldm.seedvr.model as network

        network.SEEDVR2_7B_VID_DIM = case["config"]["vid_dim"] if case["larger"] else 0
        comfy.model_detection.detect_unet_config = lambda *arguments, **given: dict(case["config"])
    return comfy.sd.load_diffusion_model(case["file"])


def sampled(case):
    """The latent that the node's conditioning leads to, and the node's tensors."""
    from comfy_extras import nodes_seedvr

    model = loaded(case)
    positive, negative = nodes_seedvr.SeedVR2Conditioning.execute(model, {"samples": case["latent"]}).args
    settings = {"sampler_name": "euler", "scheduler": "simple", "positive": positive, "negative": negative, "seed": 1}
    latent = comfy.sample.sample(
        model, case["noise"], case["steps"], case["cfg"], latent_image=case["latent"], disable_pbar=True, **settings
    )
    return [latent, positive[0][0], negative[0][0], positive[0][1]["condition"]]


def autoencoded(case):
    """Latents of videos and videos of latents, whole and in tiles."""
    if not OURS:
        import comfy.ldm.seedvr.vae as network

        network.BYTEDANCE_BLOCK_OUT_CHANNELS = case["widths"]
    vae = comfy.sd.VAE(sd=dict(case["vae"]))
    found = [vae.encode(one) for one in case["pictures"]] + [vae.decode(one) for one in case["latents"]]
    found.append(vae.encode_tiled(case["pictures"][0], tile_x=24, tile_y=32, overlap=8, tile_t=64, overlap_t=8))
    return [*found, vae.decode_tiled(case["latents"][0], tile_x=4, tile_y=3, overlap=1, tile_t=16, overlap_t=2)]


def of_node(case):
    """The tensors and numbers that a node gives."""
    from comfy_extras import nodes_seedvr

    found = []
    for value in getattr(nodes_seedvr, case["node"]).execute(**case["given"]).args:
        for one in value if isinstance(value, list) else [value]:
            one = one["samples"] if isinstance(one, dict) else one
            found.append(one if torch.is_tensor(one) else torch.tensor([float(one)]))
    return found


def run(case):
    """What comes of *case*."""
    return sampled(case) if "file" in case else autoencoded(case) if "vae" in case else of_node(case)


def main(cases_file, results_file):
    """Run all and save."""
    with torch.inference_mode():
        torch.save({name: run(case) for name, case in torch.load(cases_file).items()}, results_file)


if __name__ == "__main__":
    main(*sys.argv[1:])
