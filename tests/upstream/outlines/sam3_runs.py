"""Runs the nodes of SAM 3 with the ``comfy`` package that Python finds, and saves what they give.

    python sam3_runs.py CASES_FILE RESULTS_FILE

ComfyUI knows the published sizes alone: CASES_FILE says in ``unet`` and ``text`` which others it is to build. ``file`` is the checkpoint,
``text_prompts`` are encoded, and ``nodes`` maps names to (module, class, inputs, text prompt or None); "@name" among inputs is an earlier
result. Masks before the sigmoid come from ``network``: (text prompt, picture).
"""

import asyncio
import importlib
import sys

import torch

from comfy.cli_args import args

args.cpu = True  # before the next import: ComfyUI looks for devices there
args.use_pytorch_cross_attention = True  # its own attention on processors adds masks of truth values to scores

import comfy.sd  # noqa: E402

CELLS = 24


def adapt(cases):
    """Make ComfyUI build the sizes of the file."""
    import comfy.model_detection
    import comfy.text_encoders.sam3_clip as text

    if not hasattr(text, "SAM3_CLIP_CONFIG"):
        return
    text.SAM3_CLIP_CONFIG.update(cases["text"])
    read = comfy.model_detection.detect_unet_config

    def detect(*arguments, **options):
        return {**read(*arguments, **options), **cases["unet"]}

    comfy.model_detection.detect_unet_config = detect


def fit(tracker):
    """Give ComfyUI's *tracker* the number of cells that the file's patches make; it has that of the published files."""
    if not hasattr(tracker, "backbone_stride"):
        return
    from comfy.ldm.sam3.sam import rope_2d

    tracker.backbone_stride = 1008 // CELLS
    for name in ("sam_prompt_encoder", "interactive_sam_prompt_encoder"):
        if hasattr(tracker, name):
            getattr(tracker, name).image_embedding_size = (CELLS, CELLS)
    tracker.maskmem_backbone.mask_downsampler.interpol_size = [CELLS * 16] * 2
    encoder = tracker.transformer.encoder
    encoder._rope = rope_2d(CELLS, CELLS, tracker.d_model // encoder.layers[0].num_heads)


def run(node, inputs):
    """The outputs of a node."""
    result = node.execute(**inputs)
    result = asyncio.run(result) if asyncio.iscoroutine(result) else result
    return result.args


def detect(model, conditioning, picture):
    """Boxes, scores and masks of all queries."""
    network, (states, values) = model.model.diffusion_model, conditioning[0]
    if hasattr(network, "look"):
        found = network.detector(network.look(picture), network.detector.resized(states), values["attention_mask"])
        return {"boxes": found.boxes, "scores": found.scores, "masks": found.masks}
    found = network(picture, text_embeddings=states, text_mask=values["attention_mask"])
    return {name: found[name] for name in ("boxes", "scores", "masks")}


def main(cases_file, results_file):
    """Run all and save."""
    cases = torch.load(cases_file)
    adapt(cases)
    with torch.inference_mode():
        model, clip, *_ = comfy.sd.load_checkpoint_guess_config(cases["file"])
        fit(model.model.diffusion_model.tracker)
        texts = {text: clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in cases["text_prompts"]}
        results = {f"text {text}": found[0][0] for text, found in texts.items()}
        text, picture = cases["network"]
        results |= detect(model, texts[text], picture)
        for name, (module, kind, inputs, prompt) in cases["nodes"].items():
            node = getattr(importlib.import_module(module), kind)
            given = {key: results[value[1:]][0] if str(value)[:1] == "@" else value for key, value in inputs.items()}
            given |= {"conditioning": texts[prompt]} if prompt else {}
            given |= {"model": model} if "SCAIL" not in kind and "Mask" not in kind else {}
            results[name] = run(node, given)
    torch.save(results, results_file)


if __name__ == "__main__":
    main(*sys.argv[1:])
