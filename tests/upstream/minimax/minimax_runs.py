"""Samples with MiniMax H3's networks and autoencoders of the ``comfy`` package that Python finds, and saves what comes of it.

    python minimax_runs.py CASES_FILE RESULTS_FILE

Cases are as in ``transformer_runs.py``, but for ``noise``, ``latent`` and ``noise_mask``, which are lists: a video's and a sound's. A case
with ``vae`` (tensors of an autoencoder) encodes what is ``given`` and decodes ``latents``. One with a ``node`` runs that with ``inputs``,
stand-ins for ``encoders``, and a ``latent`` of ``kinds``; the results are all tensors and numbers that it gives.
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


class Letters:
    """Stands for a tokenizer: a token per letter."""

    @staticmethod
    def tokenize_with_weights(text, *ignored, **settings):
        return [[(ord(letter), 1.0) for letter in text]]


class Clip:
    """Stands for the text encoder of nodes: its conditioning says what it was told, tokens as numbers, pictures as values."""

    @staticmethod
    def tokenize(text, **given):
        from comfy.text_encoders.minimax import MiniMaxH3Tokenizer

        tokenizer = MiniMaxH3Tokenizer.__new__(MiniMaxH3Tokenizer)
        tokenizer.qwen3vl_32b = Letters()
        return tokenizer.tokenize_with_weights(text, **given)["qwen3vl_32b"][0]

    @staticmethod
    def encode_from_tokens_scheduled(tokens):
        parts = [token[0]["data"].flatten() if isinstance(token[0], dict) else torch.tensor([float(token[0])]) for token in tokens]
        return [
            [torch.cat(parts), {"pairs": torch.tensor([bool(t[0].get("minimax_video_block")) for t in tokens if isinstance(t[0], dict)])}]
        ]


class Encoder:
    """Stands for an autoencoder: latents are means of places."""

    audio_sample_rate = 32000

    @staticmethod
    def encode(values):
        if values.ndim == 3:
            places = values.movedim(-1, 1).unfold(-1, 800, 800).mean(-1)
            return places[:, None].expand(-1, 32, -1, -1) if places.shape[1] == 2 else places[:, None].expand(-1, 32, 2, -1)
        frames, height, width, _ = values.shape
        cells = 1 if frames == 1 else (frames - 5) // 17 * 5 + 2
        means = values[:cells].reshape(cells, height // 16, 16, width // 16, 16, 3).mean(dim=(2, 4, 5))
        return means[None, None].expand(-1, 24, -1, -1, -1)


def flat(value, name="", found=None):
    """The tensors and numbers in *value* by where they are."""
    found = {} if found is None else found
    if torch.is_tensor(value):
        found[name] = value.float()
    elif isinstance(value, NestedTensor):
        flat(value.unbind(), name, found)
    elif isinstance(value, dict):
        for key in sorted(value):
            flat(value[key], f"{name}.{key}", found)
    elif isinstance(value, (list, tuple)):
        for number, one in enumerate(value):
            flat(one, f"{name}[{number}]", found)
    elif value is not None:
        found[name] = torch.tensor([float(value) if not isinstance(value, str) else float(sum(map(ord, value)))])
    return found


def told(case):
    """What the node of *case* gives."""
    from comfy_extras import nodes_minimax_h3 as nodes

    given = dict(case["inputs"])
    for name in case.get("encoders", ()):
        given[name] = Clip() if name == "clip" else Encoder()
    if "kinds" in case:
        given["latent"] = {"samples": NestedTensor(case["kinds"])}
    return flat(list(getattr(nodes, case["node"]).execute(**given).args))


def run(case):
    """What comes of *case*."""
    return told(case) if "node" in case else autoencoded(case) if "vae" in case else sampled(case)


def main(cases_file, results_file):
    """Run all and save."""
    small_autoencoders()
    with torch.inference_mode():
        torch.save({name: run(case) for name, case in torch.load(cases_file).items()}, results_file)


if __name__ == "__main__":
    main(*sys.argv[1:])
