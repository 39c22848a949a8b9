"""Encodes with text encoders made of several models, of the ``comfy`` package that Python finds, and saves what they give.

    python conversation_runs.py CASES_FILE RESULTS_FILE

A case says the ``module`` and ``model`` of a text encoder and gives its ``parts`` (tensors by the encoder's name), ComfyUI's ``sizes`` of
them, and ``tokens``, of which ``{"data": tensor, …}`` is a picture. The conversations around prompts are saved as bytes (``templates``).
"""

import importlib
import sys

import torch

from comfy.cli_args import args

args.cpu = True  # before the next import: ComfyUI looks for devices there


def configs(case):
    """What makes the parts small, as each tree takes it."""
    try:
        from comfy.families.clip_text_config import read_clip_config
        from comfy.text.llama import read_llama_config
        from comfy.text.qwen.sizes import read_qwen_config
    except ModuleNotFoundError:
        return {f"{part}_model_config": sizes for part, sizes in case["sizes"].items()}
    readers = {"clip_l": read_clip_config, "llama": read_llama_config, "qwen25_7b": read_qwen_config}
    shapes = {part: {name: tuple(value.shape) for name, value in tensors.items()} for part, tensors in case["parts"].items()}
    return {f"{part}_model_config": readers[part](shapes[part]) for part in shapes}


def encoded(case):
    """States, the pooled output, and the mask where there is one."""
    module = importlib.import_module(f"comfy.text_encoders.{case['module']}")
    model = getattr(module, case["model"])(device="cpu", dtype=torch.float32, model_options=configs(case))
    for tensors in case["parts"].values():
        model.load_sd(dict(tensors))
    tokens = {part: [[(token, 1.0) for token in chunk] for chunk in chunks] for part, chunks in case["tokens"].items()}
    states, pooled, extra = model.encode_token_weights(tokens)
    return {"states": states, "pooled": pooled, **{name: value for name, value in extra.items() if torch.is_tensor(value)}}


class Nothing:
    """Stands for a tokenizer, whose files a tree may lack."""

    def __init__(self, *ignored, **named):
        pass


def templates():
    """The conversations, as bytes."""
    from comfy.text_encoders import hunyuan_video, kandinsky5, qwen_image

    hunyuan_video.LLAMA3Tokenizer = qwen_image.Qwen25_7BVLITokenizer = Nothing
    made = (hunyuan_video.HunyuanVideoTokenizer(), kandinsky5.Kandinsky5Tokenizer(), kandinsky5.Kandinsky5TokenizerImage())
    nodes = importlib.import_module("comfy_extras.nodes_hunyuan")
    about = getattr(nodes, "PROMPT_TEMPLATE_ENCODE_VIDEO_I2V", None) or hunyuan_video.ABOUT_PICTURE
    texts = [*(one.llama_template for one in made), about]
    return {str(number): torch.tensor(list(text.encode())) for number, text in enumerate(texts)}


def main(cases_file, results_file):
    """Run all and save."""
    with torch.inference_mode():
        found = {name: encoded(case) for name, case in torch.load(cases_file).items()}
        torch.save({**found, "templates": templates()}, results_file)


if __name__ == "__main__":
    main(*sys.argv[1:])
