"""Samples a small UNet with each of many nodes of the ``comfy_extras`` that Python finds, and saves the latents.

    python node_runs.py WEIGHTS_FILE RESULTS_FILE

It uses only what ComfyUI has, so that it runs with a checkout of it as well. The weights are made if the file is not there. The results
file holds a dict of tensors by case, or the text of the error.
"""

import importlib
import os
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file

from comfy.cli_args import args

args.cpu = True  # before the next import: ComfyUI looks for devices there

import comfy.model_base  # noqa: E402
import comfy.model_patcher  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.samplers  # noqa: E402
import comfy.supported_models  # noqa: E402
import folder_paths  # noqa: E402

CONTEXT = 64
CONFIG = {
    "use_checkpoint": False,
    "image_size": 32,
    "out_channels": 4,
    "in_channels": 4,
    "use_spatial_transformer": True,
    "legacy": False,
    "adm_in_channels": None,
    "model_channels": 32,
    "num_res_blocks": [1, 1],
    "transformer_depth": [1, 1],
    "transformer_depth_output": [1, 1, 1, 1],
    "channel_mult": [1, 2],
    "transformer_depth_middle": 1,
    "use_linear_in_transformer": False,
    "context_dim": CONTEXT,
    "num_heads": 8,
    "num_head_channels": -1,
    "use_temporal_attention": False,
    "use_temporal_resblock": False,
}
STEPS, SCALE, SEED = 3, 4.0, 5
MODELS = ("first", "second")


def numbers(*shape, seed):
    """Seeded noise."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def new_model():
    """A patcher around Stable Diffusion 1.5's network of two levels, narrow, without weights."""
    config = comfy.supported_models.SD15(dict(CONFIG))
    config.set_inference_dtype(torch.float32, None)
    model = comfy.model_base.BaseModel(config, device=torch.device("cpu"))
    return comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))


def make_weights(path):
    """Write weights for all MODELS, each under its name."""
    tensors = {}
    for which, name in enumerate(MODELS):
        for number, (key, value) in enumerate(new_model().model.diffusion_model.state_dict().items()):
            made = numbers(*value.shape, seed=1000 * which + number)
            is_norm = value.ndim == 1 and key.endswith("weight")
            tensors[f"{name}.{key}"] = 1.0 + 0.1 * made if is_norm else 0.1 * made if value.ndim == 1 else made / value[0].numel() ** 0.5
    save_file(tensors, path)


def load_model(tensors, name):
    """A patcher with the weights called *name*."""
    patcher = new_model()
    own = {key.removeprefix(f"{name}."): value.clone() for key, value in tensors.items() if key.startswith(f"{name}.")}
    patcher.model.load_model_weights(own, "")
    return patcher


def conditioning(seed):
    """A text that only its seed says something of."""
    return [[numbers(1, 7, CONTEXT, seed=seed), {}]]


def sampled(patcher, steps=STEPS, batch=2):
    """Latents of 16 × 24 cells."""
    noise = numbers(batch, 4, 16, 24, seed=3)
    torch.manual_seed(SEED)
    inputs = (conditioning(1), conditioning(2), torch.zeros_like(noise))
    return comfy.sample.sample(patcher, noise, steps, SCALE, "euler", "normal", *inputs, seed=SEED, disable_pbar=True)


def call(module, name, *arguments, method="execute", **inputs):
    """The first output of a node."""
    node = getattr(importlib.import_module(f"comfy_extras.nodes_{module}"), name)
    result = getattr(node if method == "execute" else node(), method)(*arguments, **inputs)
    return getattr(result, "args", result)[0]


PATCHES = {
    "none": lambda model: model,
    "APG": lambda model: call("apg", "APG", model, 0.5, 5.0, 0.0),
    "APG with momentum": lambda model: call("apg", "APG", model, 0.0, 2.0, -0.5),
    "CFGZeroStar": lambda model: call("cfg", "CFGZeroStar", model),
    "CFGNorm": lambda model: call("cfg", "CFGNorm", model, 0.9),
    "CFGNorm before": lambda model: call("cfg", "CFGNorm", model, 0.7, pre_cfg=True),
    "Epsilon Scaling": lambda model: call("eps", "EpsilonScaling", model, 1.02),
    "FreSca": lambda model: call("fresca", "FreSca", model, 0.8, 1.5, 3),
    "Mahiro": lambda model: call("mahiro", "Mahiro", model),
    "TCFG": lambda model: call("tcfg", "TCFG", model),
    "NAGuidance": lambda model: call("nag", "NAGuidance", model, 5.0, 0.5, 1.5),
    "PatchModelAddDownscale": lambda model: call(
        "model_downscale", "PatchModelAddDownscale", model, 3, 2.0, 0.0, 0.5, True, "bicubic", "bislerp"
    ),
    "PatchModelAddDownscale before": lambda model: call(
        "model_downscale", "PatchModelAddDownscale", model, 2, 1.5, 0.1, 1.0, False, "area", "bilinear"
    ),
    "PerturbedAttentionGuidance": lambda model: call("pag", "PerturbedAttentionGuidance", model, 3.0),
    "SelfAttentionGuidance": lambda model: call("sag", "SelfAttentionGuidance", model, 0.7, 2.0),
    "UNetSelfAttentionMultiply": lambda model: call("attention_multiply", "UNetSelfAttentionMultiply", model, 1.1, 0.9, 1.2, 0.8),
    "UNetCrossAttentionMultiply": lambda model: call("attention_multiply", "UNetCrossAttentionMultiply", model, 1.1, 0.9, 1.2, 0.8),
    "UNetTemporalAttentionMultiply": lambda model: call("attention_multiply", "UNetTemporalAttentionMultiply", model, 1.1, 3.0, 0.7, 3.0),
    "HyperTile": lambda model: call("hypertile", "HyperTile", model, 32, 3, 1, False),
    "HyperTile by depth": lambda model: call("hypertile", "HyperTile", model, 64, 2, 2, True),
    "TomePatchModel": lambda model: call("tomesd", "TomePatchModel", model, 0.4),
    "RenormCFG": lambda model: call("lumina2", "RenormCFG", model, 100.0, 0.0),
    "RenormCFG cut off": lambda model: call("lumina2", "RenormCFG", model, 2.0, 0.0),
    "VideoLinearCFGGuidance": lambda model: call("video_model", "VideoLinearCFGGuidance", model, 1.0, method="patch"),
    "VideoTriangleCFGGuidance": lambda model: call("video_model", "VideoTriangleCFGGuidance", model, 1.5, method="patch"),
    "ModelAttentionBackend": lambda model: call("model_advanced", "ModelAttentionBackend", model, "pytorch attention", method="patch"),
    "SkipLayerGuidanceDiT": lambda model: call("slg", "SkipLayerGuidanceDiT", model, 2.0, 0.0, 0.9, "1, 2", "", 0.3),
    "PerpNeg": lambda model: call("perpneg", "PerpNeg", model, conditioning(4), 0.8),
    "together": lambda model: PATCHES["TomePatchModel"](PATCHES["PerturbedAttentionGuidance"](PATCHES["APG"](PATCHES["TCFG"](model)))),
}
ONE_AT_A_TIME = {
    "RenormCFG of a length": lambda model: call("lumina2", "RenormCFG", model, 100.0, 0.8),
    "TemporalScoreRescaling": lambda model: call("eps", "TemporalScoreRescaling", model, 0.8, 1.5),
}
SKIPPING = {
    "EasyCache": lambda model: call("easycache", "EasyCacheNode", model, 0.3, 0.1, 0.9, False),
    "LazyCache": lambda model: call("easycache", "LazyCacheNode", model, 0.3, 0.1, 0.9, False),
}
SD1_RATIOS = {
    "time_embed.": 0.1,
    "input_blocks.1.": 0.4,
    "input_blocks.3.": 0.6,
    "middle_block.1.": 0.3,
    "output_blocks.3.": 0.8,
    "out.": 0.2,
}
MERGES = {
    "ModelMergeSimple": lambda one, two: call("model_merging", "ModelMergeSimple", one, two, 0.3, method="merge"),
    "ModelMergeSubtract": lambda one, two: call("model_merging", "ModelSubtract", one, two, 0.5, method="merge"),
    "ModelMergeAdd": lambda one, two: call("model_merging", "ModelAdd", one, two, method="merge"),
    "ModelMergeBlocks": lambda one, two: call(
        "model_merging", "ModelMergeBlocks", one, two, method="merge", input=0.2, middle=0.9, out=0.5
    ),
    "ModelMergeSD1": lambda one, two: call("model_merging_model_specific", "ModelMergeSD1", one, two, method="merge", **SD1_RATIOS),
    "merges of merges": lambda one, two: MERGES["ModelMergeAdd"](one, MERGES["ModelMergeSubtract"](two, one)),
}


def hypernetwork(model):
    """With a hypernetwork of random weights for keys and values of the text's width."""
    folder = tempfile.mkdtemp()
    shapes = {"linear.0.weight": (96, CONTEXT), "linear.0.bias": (96,), "linear.2.weight": (CONTEXT, 96), "linear.2.bias": (CONTEXT,)}
    networks = [{name: 0.1 * numbers(*shape, seed=seed) for name, shape in shapes.items()} for seed in (7, 8)]
    torch.save({CONTEXT: networks, "activation_func": "mish", "is_layer_norm": False, "use_dropout": False}, os.path.join(folder, "h.pt"))
    folder_paths.add_model_folder_path("hypernetworks", folder)
    return sampled(call("hypernetwork", "HypernetworkLoader", model, "h.pt", 0.7))


def guided_by_two(one, two):
    """The negative side by another model."""
    guider = call("custom_sampler", "DualModelGuider", one, conditioning(1), SCALE, two, conditioning(2))
    noise = numbers(2, 4, 16, 24, seed=3)
    sigmas = comfy.samplers.calculate_sigmas(one.get_model_object("model_sampling"), "normal", STEPS)
    return guider.sample(noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), sigmas, disable_pbar=True, seed=SEED)


def extracted(one, two):
    """What a LoRA of the difference adds to one weight and to a convolution, and a bias."""
    folder_paths.set_output_directory(tempfile.mkdtemp())
    difference = MERGES["ModelMergeSubtract"](one, two)
    node = importlib.import_module("comfy_extras.nodes_lora_extract").LoraSave
    node.execute("lora", 4, "standard", True, model_diff=difference)
    lora = load_file(os.path.join(folder_paths.get_output_directory(), "lora_00001_.safetensors"))
    found = {"extracted names": torch.tensor([float(len(lora))]), "extracted bias": lora["diffusion_model.out.2.diff_b"].float()}
    for layer in ("input_blocks.1.1.transformer_blocks.0.attn1.to_q", "input_blocks.1.0.in_layers.2", "input_blocks.3.0.skip_connection"):
        up, down = (lora[f"diffusion_model.{layer}.lora_{part}.weight"].float().flatten(1) for part in ("up", "down"))
        found[f"extracted {layer}"] = up @ down
    return found


def schedules():
    """The sigmas of nodes that need no model."""
    found = {"Ideogram4Scheduler": call("ideogram4", "Ideogram4Scheduler", 12, 1024, 768, 0.3, 1.5)}
    for steps, width, height in ((20, 1024, 1024), (4, 512, 768), (50, 2048, 1536)):
        found[f"Flux2Scheduler {steps}"] = call("flux", "Flux2Scheduler", steps, width, height)
    for coeff, steps, denoise in ((1.2, 10, 1.0), (0.8, 2, 1.0), (1.5, 20, 0.6), (0.95, 33, 1.0), (1.1, 25, 0.4)):
        found[f"GITSScheduler {coeff} {steps}"] = call("gits", "GITSScheduler", coeff, steps, denoise)
    return found


def main(weights_file, results_file):
    """Run all and save."""
    if not os.path.exists(weights_file):
        make_weights(weights_file)
    tensors = load_file(weights_file)
    one, two = (load_model(tensors, name) for name in MODELS)
    runs = {name: lambda patch=patch: sampled(patch(one)) for name, patch in PATCHES.items()}
    runs |= {name: lambda patch=patch: sampled(patch(one), batch=1) for name, patch in ONE_AT_A_TIME.items()}
    runs |= {name: lambda patch=patch: sampled(patch(one), steps=12) for name, patch in SKIPPING.items()}
    runs |= {name: lambda merge=merge: sampled(merge(one, two)) for name, merge in MERGES.items()}
    runs |= {"HypernetworkLoader": lambda: hypernetwork(one), "DualModelGuider": lambda: guided_by_two(one, two)}
    results = {}
    for name, run in [*runs.items(), ("extracted", lambda: extracted(one, two)), ("schedules", schedules)]:
        try:
            with torch.inference_mode():
                found = run()
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
        results |= found if isinstance(found, dict) else {name: found}
    torch.save(results, results_file)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
