"""Has small language models of the ``comfy`` package that Python finds write, and saves what they say.

    python text_generation_runs.py CASES_FILE RESULTS_FILE

CASES_FILE holds {name: case}: a dict of the arguments of :func:`said`. The results are lists of ids, by name.
"""

import pathlib
import sys

import torch

from comfy.cli_args import args

args.cpu = True  # before the next import: ComfyUI looks for devices there
sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))

import small_model_runs  # noqa: E402

import comfy.text_encoders.llama  # noqa: E402


def said(module, name, part, sizes, tensors, tokens, options, arguments=None, eyes=None):
    """What the text encoder *name* of ``comfy.text_encoders.MODULE`` says after *tokens*, with each of *options*."""
    texts = getattr(__import__(f"comfy.text_encoders.{module}").text_encoders, module)
    own = small_model_runs.own_sizes(part, sizes, eyes or {}, tensors)
    options_name = part if own is not sizes or part != "gemma3_12b" else ""  # ComfyUI's has no family around it
    if own is sizes and part == "gemma3_12b":
        comfy.text_encoders.llama.GEMMA3_VISION_CONFIG.update(eyes)
    kind = getattr(texts, name) if arguments is None else getattr(texts, name)(**arguments)
    encoder = kind(device="cpu", dtype=torch.float32, model_options={f"{options_name}_model_config": own})
    encoder.load_sd(dict(tensors))
    encoder.set_clip_options({"execution_device": torch.device("cpu")})
    chunks = [[(token, 1.0) for token in tokens]]
    given = chunks if hasattr(encoder, "transformer") else {part: chunks}
    return [encoder.generate(given, **one) for one in options]


def main(cases_file, results_file):
    """Run all and save."""
    with torch.inference_mode():
        cases = torch.load(cases_file)
        torch.save({name: said(**case) for name, case in cases.items()}, results_file)


if __name__ == "__main__":
    main(*sys.argv[1:])
