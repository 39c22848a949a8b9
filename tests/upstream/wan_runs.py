"""Samples with Wan's models of the ``comfy`` package that Python finds, and saves the latents.

    python wan_runs.py CASES_FILE RESULTS_FILE

Cases are as in ``transformer_runs.py``; besides, ``shift`` is that of ModelSamplingSD3, ``noise_mask`` says what is sampled, and a
``vision`` in a conditioning is what an image encoder saw. A case with ``vae`` (tensors of Wan 2.2's autoencoder) encodes ``pictures`` and
decodes ``latents``, whole and in tiles.
"""

import sys

import torch

from comfy.cli_args import args

args.cpu = True  # before the next import: ComfyUI looks for devices there

import comfy.clip_vision  # noqa: E402
import comfy.model_sampling  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.sd  # noqa: E402


def prepared(conditioning):
    """The conditioning, with what was seen as the object that ComfyUI passes."""
    values, options = conditioning[0]
    options = dict(options)
    if "vision" in options:
        output = comfy.clip_vision.Output()
        output.penultimate_hidden_states = options.pop("vision")
        options["clip_vision_output"] = output
    return [[values, options]]


def shifted(model, shift):
    """*model* with another shift, as the node makes it."""

    class Sampling(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
        pass

    sampling = Sampling(model.model.model_config)
    sampling.set_parameters(shift=shift, multiplier=1000)
    model = model.clone()
    model.add_object_patch("model_sampling", sampling)
    return model


def small_autoencoders(tensors):
    """Let ComfyUI, which knows the real sizes alone, make Wan 2.2's autoencoder of those of *tensors*."""
    import comfy.ldm.wan.vae2_2 as networks

    if hasattr(networks, "CausalConv3d"):  # this project has other classes
        network, dec_dim = networks.WanVAE, len(tensors["decoder.head.0.gamma"])
        networks.WanVAE = lambda dim, **given: network(dim=len(tensors["encoder.conv1.bias"]), dec_dim=dec_dim, **given)


def autoencoded(case):
    """Latents of pictures, then pictures of latents."""
    small_autoencoders(case["vae"])
    vae = comfy.sd.VAE(sd=dict(case["vae"]))
    found = [vae.encode(one) for one in case["pictures"]] + [vae.decode(one) for one in case["latents"]]
    return [*found, vae.decode_tiled(case["latents"][0], tile_x=4, tile_y=4, overlap=2, tile_t=16, overlap_t=2)]


def run(case):
    """The last latent of *case*."""
    if "vae" in case:
        return autoencoded(case)
    model = comfy.sd.load_diffusion_model(case["model"], model_options=case.get("model_options", {}))
    if "shift" in case:
        model = shifted(model, case["shift"])
    return comfy.sample.sample(
        model,
        case["noise"],
        case.get("steps", 2),
        case["cfg"],
        case.get("sampler", "euler"),
        "simple",
        prepared(case["positive"]),
        prepared(case["negative"]),
        case["latent"],
        noise_mask=case.get("noise_mask"),
        disable_pbar=True,
        seed=1,
    )


def main(cases_file, results_file):
    """Run all and save."""
    with torch.inference_mode():
        torch.save({name: run(case) for name, case in torch.load(cases_file).items()}, results_file)


if __name__ == "__main__":
    main(*sys.argv[1:])
