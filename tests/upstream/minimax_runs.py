"""Samples with MiniMax H3's networks and autoencoders of the ``comfy`` package that Python finds, and saves what comes of it.

    python minimax_runs.py CASES_FILE RESULTS_FILE

Cases are as in ``transformer_runs.py``, but for ``noise``, ``latent`` and ``noise_mask``, which are lists: a video's and a sound's. A case
with ``vae`` (tensors of an autoencoder) encodes what is ``given`` and decodes ``latents``.
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


def small_autoencoders():
    """Let ComfyUI, which knows the real sizes alone, make autoencoders of the sizes of the tests' files."""
    try:
        import comfy.ldm.minimax.audio_vae as sound
        import comfy.ldm.minimax.vae as video
    except ModuleNotFoundError:  # this project reads sizes from files
        return
    whole, decoder, heard = video.MiniMaxH3VideoVAE, video.ViT3DDecoder, sound.MiniMaxH3AudioVAE
    video.ViT3DDecoder = lambda **given: decoder(**given, num_layers=2, heads=1)
    video.MiniMaxH3VideoVAE = lambda **given: whole(ch=32, ch_mult=(1,) * 6, **given)
    sound.MiniMaxH3AudioVAE = lambda: heard(encoder_dim=2, latent_dim=256, decoder_dim=256)


def autoencoded(case):
    """Latents of pictures or sounds, then what latents become, whole and in tiles."""
    vae = comfy.sd.VAE(sd=dict(case["vae"]))
    found = [vae.encode(one) for one in case["given"]] + [vae.decode(one) for one in case["latents"]]
    return found + ([vae.decode_tiled(case["latents"][0], tile_x=8, tile_y=8, overlap=2)] if case["latents"][0].ndim == 5 else [])


def run(case):
    """What comes of *case*."""
    return autoencoded(case) if "vae" in case else sampled(case)


def main(cases_file, results_file):
    """Run all and save."""
    small_autoencoders()
    with torch.inference_mode():
        torch.save({name: run(case) for name, case in torch.load(cases_file).items()}, results_file)


if __name__ == "__main__":
    main(*sys.argv[1:])
