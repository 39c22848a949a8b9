"""Has small models of Gemma 4, and T5Gemma, of the ``comfy`` package that Python finds encode and write, and saves what comes of it.

    python gemma4_runs.py CASES_FILE RESULTS_FILE

CASES_FILE holds {name: case}: a dict of the arguments of :func:`made`.
"""

import sys

import torch

from comfy.cli_args import args

args.cpu = True  # before the next import: ComfyUI looks for devices there

import comfy.sd  # noqa: E402
import comfy.text_encoders.gemma4 as gemma4  # noqa: E402
import comfy.text_encoders.sa3 as sa3  # noqa: E402

IS_UPSTREAM = hasattr(gemma4, "GEMMA4_VISION_CONFIG")


def shrunk(sizes):
    """Options that give ComfyUI's networks *sizes*; those that are no arguments become the classes' own."""
    for kind in (gemma4.Gemma4Config, gemma4.Gemma4_E2B_Config, gemma4.Gemma4_31B_Config, gemma4.Gemma4_12B_Config):
        kind.head_dim, kind.global_head_dim = sizes["head"], sizes["far_head"]
    gemma4.Gemma4_12B_Config.suppress_tokens = []  # tokens beyond a small vocabulary
    gemma4.GEMMA4_VISION_CONFIG.update(sizes["eyes"])
    gemma4.GEMMA4_VISION_31B_CONFIG.update(sizes["eyes"])
    gemma4.GEMMA4_AUDIO_CONFIG.update(sizes["ears"])
    gemma4.GEMMA4_UNIFIED_VISION_CONFIG.update(sizes["glance"])
    return {f"{name}_model_config": sizes["network"] for name in ("gemma4", "")}


def shrink_t5_gemma(sizes):
    """Have ComfyUI's T5Gemma be of *sizes*."""
    published = sa3.T5GemmaEncoderConfig.__init__

    def init(self):
        published(self)
        self.__dict__.update(sizes)

    sa3.T5GemmaEncoderConfig.__init__ = init


def made(tensors, sizes, kind, calls, written):
    """Of each of *calls* (arguments of ``tokenize``): ids, states, mask and, for each of *written* (of ``generate``), ids and text."""
    options = {"dtype": torch.float32, **(shrunk(sizes) if IS_UPSTREAM and "network" in sizes else {})}
    if IS_UPSTREAM and "t5" in sizes:
        shrink_t5_gemma(sizes["t5"])
    clip = comfy.sd.load_text_encoder_state_dicts([dict(tensors)], clip_type=getattr(comfy.sd.CLIPType, kind), model_options=options)
    results = []
    for call in calls:
        tokens = clip.tokenize(**call)
        given = [token for chunks in tokens.values() for chunk in chunks for token, *_ in chunk]
        ids = [token if isinstance(token, int) else token["type"] for token in given]
        result = {"ids": ids, "name": list(tokens), "said": []}
        for one in written:
            said = clip.generate(clip.tokenize(**call), **one)
            result["said"].append((said, clip.decode(said)))
        encoded = clip.encode_from_tokens(tokens, return_dict=True)
        results.append({**result, **{name: value for name, value in encoded.items() if name != "pooled_output"}})
    return results


def main(cases_file, results_file):
    """Run all and save."""
    with torch.inference_mode():
        cases = torch.load(cases_file, weights_only=False)
        torch.save({name: made(**case) for name, case in cases.items()}, results_file)


if __name__ == "__main__":
    main(*sys.argv[1:])
