"""Samples with models of sound of the ``comfy`` package that Python finds, decodes and encodes, and saves what comes of it.

    python sound_model_runs.py CASES_FILE RESULTS_FILE

A case with ``model`` (a file) samples as in ``video_model_runs.py``. A case with ``vae`` (tensors of an autoencoder) encodes ``sounds`` and
decodes ``latents``, whole and in pieces. A case with ``encoder`` (what ``ENCODERS`` names) encodes texts. ComfyUI knows the real sizes
alone; a case's ``sizes`` are those that it is told instead.
"""

import importlib
import importlib.util
import sys

import torch

from comfy.cli_args import args

args.cpu = True  # before the next import: ComfyUI looks for devices there

import comfy.sample  # noqa: E402
import comfy.sd  # noqa: E402

OURS = importlib.util.find_spec("comfy.made_by") is not None


def told(path, **sizes):
    """Let the checkout's class "module:name" be made with *sizes*, where that is not this project."""
    if not OURS:
        module, _, name = path.partition(":")
        module = importlib.import_module(module)
        made = getattr(module, name)
        before = made.__init__

        def begin(self, *arguments, **given):
            before(self, *arguments, **{**given, **sizes})

        made.__init__ = begin


def sampled(case):
    """The latent of *case*."""
    for path, sizes in case.get("sizes", {}).items():
        told(path, **sizes)
    model = comfy.sd.load_diffusion_model(case["model"]) if "checkpoint" not in case else checkpoint(case["model"])
    return comfy.sample.sample(
        model,
        case["noise"],
        case.get("steps", 2),
        case["cfg"],
        case.get("sampler", "euler"),
        "simple",
        case["positive"],
        case["negative"],
        case["latent"],
        disable_pbar=True,
        seed=1,
    )


def checkpoint(path):
    """The diffusion model of a whole checkpoint."""
    return comfy.sd.load_checkpoint_guess_config(path, output_vae=False, output_clip=False)[0]


def autoencoded(case):
    """Latents of sounds, then sounds of latents, the first also in pieces."""
    for path, sizes in case.get("sizes", {}).items():
        told(path, **sizes)
    vae = comfy.sd.VAE(sd=dict(case["vae"]))
    torch.manual_seed(11)
    found = [vae.encode(one) for one in case["sounds"]] + [vae.decode(one) for one in case["latents"]]
    pieces = vae.decode_tiled(case["latents"][0], tile_x=8, tile_y=8, overlap=2)
    return [*found, pieces, torch.tensor([[float(vae.audio_sample_rate), 1.0]])]


def run(case):
    """What comes of *case*."""
    if "vae" in case:
        return autoencoded(case)
    if "encoder" in case:
        return ENCODERS[case["encoder"]](case)
    return sampled(case)


def ace15(case):
    """States of tags, embeddings of lyrics, and codes, of ACE-Step 1.5's text encoder."""
    from comfy.text_encoders import ace15

    sizes = dict(case["settings"])
    if OURS:
        from comfy.text.qwen.sizes import read_qwen_config

        sizes = {part: read_qwen_config({name: tuple(value.shape) for name, value in case[part].items()}) for part in sizes}
    options = {f"{part}_model_config": value for part, value in sizes.items()}
    writer = next(part for part in sizes if part != "qwen3_06b")
    if not OURS:
        shared(options, writer)
    model = ace15.te(lm_model=writer)(device="cpu", dtype=torch.float32, model_options=options)
    for part in sizes:
        getattr(model, part).load_sd(dict(case[part]))
    found = []
    for tokens in case["tokens"]:
        model.reset_clip_options()
        model.set_clip_options({"execution_device": torch.device("cpu")})
        pairs = {name: [[(token, 1.0) for token in chunk]] for name, chunk in tokens.items() if name != "lm_metadata"}
        states, _, extra = model.encode_token_weights({**pairs, "lm_metadata": tokens["lm_metadata"]})
        found += [states, extra["conditioning_lyrics"], torch.tensor(extra["audio_codes"], dtype=torch.float32)]
    return found


def shared(options, writer):
    """Let ComfyUI, whose text models share one name in options, take the sizes of each part."""
    from comfy.text_encoders import ace15

    for name, part in (("Qwen3_06BModel", "qwen3_06b"), ("Qwen3_4B_ACE15", writer)):
        made = getattr(ace15, name)

        def make(made=made, part=part, **given):
            return made(**{**given, "model_options": {"model_name": part, f"{part}_model_config": options[f"{part}_model_config"]}})

        setattr(ace15, name, make)


def lyrics(case):
    """The tokens of lyrics, and their weights."""
    if OURS:
        args.tokenizer_directory = [case["folder"].rpartition("/")[0]]
        from comfy.text_encoders.ace import LyricsTokenizer

        tokenizer = LyricsTokenizer()
    else:
        from comfy.text_encoders import ace

        made = ace.VoiceBpeTokenizer
        ace.VoiceBpeTokenizer.from_pretrained = lambda path, **kwargs: made(f"{case['folder']}/vocab.json")
        tokenizer = ace.LyricsTokenizer()
    return [[list(pair) for pair in tokenizer.tokenize_with_weights(text)[0]] for text in case["texts"]]


class Autoencoder:
    """Makes latents of videos by picking frames and pixels."""

    def encode(self, pixels):
        latent = pixels[::4, ::8, ::8].mean(dim=-1, keepdim=True).expand(-1, -1, -1, 16)
        return latent.movedim(-1, 0)[None] + torch.arange(16).view(1, 16, 1, 1, 1)


def nodes_of_wan(case):
    """What Wan's nodes for sound put into conditionings, as tensors."""
    from comfy_extras import nodes_wan

    name, given = case["node"], dict(case["given"])
    sides = [[torch.zeros(1, 2, 4), {}]], [[torch.ones(1, 2, 4), {}]]
    made = getattr(nodes_wan, name).execute(*sides, Autoencoder(), **given).args
    found = [made[2]["samples"]]
    for side in made[:2]:
        for key in sorted(side[0][1]):
            value = side[0][1][key]
            found += value if isinstance(value, list) else [value]
    return found


ENCODERS = {"ace15": ace15, "lyrics": lyrics, "nodes": nodes_of_wan}


def main(cases_file, results_file):
    """Run all and save."""
    with torch.inference_mode():
        torch.save({name: run(case) for name, case in torch.load(cases_file).items()}, results_file)


if __name__ == "__main__":
    main(*sys.argv[1:])
