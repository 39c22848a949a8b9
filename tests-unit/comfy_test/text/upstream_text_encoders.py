"""Runs in a ComfyUI checkout: python upstream_text_encoders.py ASKED.json OUT.safetensors.

ASKED holds {"prompts": [...], "configs": {part: sizes}, "cases": {name: {"type", "files", "width"}}}. OUT gets ``name/number/cond``,
``…/pooled_output`` and ``…/attention_mask`` of each prompt, and what it made of the prompts, as JSON, in the metadata "tokens".
"""

import importlib.util
import json
import sys


def narrower_sd3(width):
    """SD3's module with *width* where its text encoder has that of the published T5."""
    name = "comfy.text_encoders.sd3_clip"
    spec = importlib.util.find_spec(name)
    with open(spec.origin) as file:
        text = file.read().replace("4096 - ", f"{width} - ").replace("1, 77, 4096", f"1, 77, {width}")
    module = sys.modules[name]
    exec(compile(text, spec.origin, "exec"), module.__dict__)  # noqa: S102 - the checkout's own code


class NoTokens:
    """Stands for Llama's tokenizer, whose file checkouts may lack."""

    def __init__(self, **ignored):
        pass

    def tokenize_with_weights(self, text, *ignored, **others):
        return []


def plain(tokens):
    if isinstance(tokens, list):  # of a text model without a family around it
        tokens = {"gemma3_12b": tokens}
    return {name: [[[int(token[0]), token[1]] for token in chunk] for chunk in chunks] for name, chunks in tokens.items()}


def main(asked_path, target):
    sys.argv = ["main.py", "--cpu", "--fp32-text-enc"]
    sys.path.insert(0, ".")
    import comfy.options

    comfy.options.enable_args_parsing()
    import safetensors.torch
    import torch

    import comfy.sd
    import comfy.text_encoders.sd3_clip

    comfy.text_encoders.llama.GEMMA3_VISION_CONFIG.update(hidden_size=32, intermediate_size=64, num_hidden_layers=2)

    with open(asked_path) as file:
        asked = json.load(file)
    comfy.text_encoders.long_clipl.model_options_long_clip = lambda sd, data, options: (data, options)
    comfy.text_encoders.hunyuan_video.LLAMA3Tokenizer = NoTokens
    own_detect = comfy.sd.detect_te_model

    def detect(sd):
        if "encoder.block.0.layer.1.DenseReluDense.wi_1.weight" in sd:
            return comfy.sd.TEModel.T5_XXL
        return own_detect(sd)

    comfy.sd.detect_te_model = detect
    results, tokens = {}, {}
    for name, case in asked["cases"].items():
        narrower_sd3(case["width"])
        states = [safetensors.torch.load_file(path) for path in case["files"]]
        options = {f"{part}_model_config": dict(sizes) for part, sizes in case["configs"].items()}
        clip_type = getattr(comfy.sd.CLIPType, case["type"].upper(), comfy.sd.CLIPType.STABLE_DIFFUSION)
        clip = comfy.sd.load_text_encoder_state_dicts(states, clip_type=clip_type, model_options=options)
        for number, prompt in enumerate(asked["prompts"]):
            made = clip.tokenize(prompt)
            tokens[f"{name}/{number}"] = plain(made)
            with torch.inference_mode():
                encoded = clip.encode_from_tokens(made, return_pooled=True, return_dict=True)
            results |= {f"{name}/{number}/{key}": value.contiguous() for key, value in encoded.items() if torch.is_tensor(value)}
    safetensors.torch.save_file(results, target, metadata={"tokens": json.dumps(tokens)})


if __name__ == "__main__":
    main(*sys.argv[1:3])
