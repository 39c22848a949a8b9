"""The prompts, in the API's format, whose pictures picture_parity.py compares; nodes and inputs are named as ComfyUI names them."""

import dataclasses
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests"))

from picture_prompts import node, text_to_picture  # noqa: E402

Graph = dict[str, dict[str, Any]]

GRID_SAMPLERS = ("euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_sde", "ddim", "uni_pc")
GRID_SCHEDULERS = ("normal", "karras", "sgm_uniform")
OTHER_SAMPLERS = (
    ("heun", "simple"),
    ("dpm_2", "exponential"),
    ("dpmpp_2s_ancestral", "ddim_uniform"),
    ("dpmpp_sde", "beta"),
    ("dpmpp_3m_sde", "exponential"),
    ("lcm", "simple"),
)
POSITIVE = "a photo of a cat"
WEIGHTED = "a (red:1.4) house, ((old)) [grey] \\(quiet\\)"
LONG = "many words in a row about rivers, hills, roads and towers " * 10
CHECKPOINT = "checkpoint.safetensors"
LORA, CONTROLNET, EMBEDDING, PICTURE = "lora.safetensors", "controlnet.safetensors", "three_tokens.safetensors", "picture.png"
WITH_EMBEDDING = "a photo of embedding:three_tokens, (embedding:three_tokens.safetensors:1.3) and a cat"


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """One picture: its name, the graph, and the case that it must differ from for the comparison to say anything ("" for none)."""

    name: str
    graph: Graph
    baseline: str = ""


def text_to_image(
    checkpoint: str, size: int, steps: int, seed: int, sampler: str = "euler", scheduler: str = "normal", positive: str = POSITIVE
) -> Graph:
    """The ordinary graph; every other case changes this one."""
    looks = {"sampler": sampler, "scheduler": scheduler, "prefix": "parity"}
    return text_to_picture(checkpoint, seed, positive, "blurred", size=size, steps=steps, cfg=5.0, **looks)


def cases(checkpoint: str, size: int, steps: int, seed: int, addons: frozenset[str], two_text_models: bool) -> Iterator[Case]:
    """Every case; those that need a file of *addons* ("lora", "controlnet", "embedding") only when it is there."""
    plain = (checkpoint, size, steps, seed)
    for sampler in GRID_SAMPLERS:
        for scheduler in GRID_SCHEDULERS:
            baseline = "" if (sampler, scheduler) == (GRID_SAMPLERS[0], GRID_SCHEDULERS[0]) else "euler, normal"
            yield Case(f"{sampler}, {scheduler}", text_to_image(*plain, sampler, scheduler), baseline)
    for sampler, scheduler in OTHER_SAMPLERS:
        enough = (checkpoint, size, steps + 2 if sampler == "dpmpp_3m_sde" else steps, seed)  # its third order begins at the third step
        yield Case(f"{sampler}, {scheduler}", text_to_image(*enough, sampler, scheduler), "euler, normal")
    if "embedding" in addons:
        yield Case("embedding, plain and weighted", text_to_image(*plain, positive=WITH_EMBEDDING), "euler, normal")
    yield from _text_cases(plain, two_text_models)
    yield from _picture_cases(plain)
    yield from _sampling_cases(plain)
    if "lora" in addons:
        graph = text_to_image(*plain)
        graph["lora"] = node("LoraLoader", model=["model", 0], clip=["model", 1], lora_name=LORA, strength_model=0.8, strength_clip=0.7)
        graph["sample"]["inputs"]["model"] = ["lora", 0]
        graph["positive"]["inputs"]["clip"] = graph["negative"]["inputs"]["clip"] = ["lora", 1]
        yield Case("LoRA, strengths 0.8 and 0.7", graph, "euler, normal")
    if "controlnet" in addons:
        yield Case("ControlNet, strength 0.9", _controlled(plain, 0.9, 0.0, 1.0), "euler, normal")
        yield Case("ControlNet, strength 0.6, 20 % to 70 %", _controlled(plain, 0.6, 0.2, 0.7), "euler, normal")


Plain = tuple[str, int, int, int]


def _text_cases(plain: Plain, two_text_models: bool) -> Iterator[Case]:
    yield Case("prompt weights and escapes", text_to_image(*plain, positive=WEIGHTED), "euler, normal")
    yield Case("two text chunks", text_to_image(*plain, positive=LONG), "euler, normal")
    graph = text_to_image(*plain)
    graph["skip"] = node("CLIPSetLastLayer", clip=["model", 1], stop_at_clip_layer=-3)
    graph["positive"]["inputs"]["clip"] = graph["negative"]["inputs"]["clip"] = ["skip", 0]
    yield Case("clip skip", graph, "euler, normal")
    if two_text_models:
        graph = text_to_image(*plain)
        graph["positive"] = node(
            "CLIPTextEncodeSDXL",
            clip=["model", 1],
            width=768,
            height=640,
            crop_w=16,
            crop_h=8,
            target_width=512,
            target_height=512,
            text_g=POSITIVE,
            text_l=WEIGHTED,
        )
        yield Case("CLIPTextEncodeSDXL", graph, "euler, normal")


def _picture_cases(plain: Plain) -> Iterator[Case]:
    size = plain[1]
    picture = {"picture": node("LoadImage", image=PICTURE)}
    encode = node("VAEEncode", pixels=["picture", 0], vae=["model", 2])
    graph = text_to_image(*plain) | picture | {"latent": encode}
    graph["sample"]["inputs"]["denoise"] = 0.6
    yield Case("img2img, denoise 0.6", graph)
    graph = text_to_image(*plain) | picture
    graph |= {"encode": encode, "latent": node("SetLatentNoiseMask", samples=["encode", 0], mask=["picture", 1])}
    graph["sample"]["inputs"]["denoise"] = 0.8
    yield Case("inpainting, SetLatentNoiseMask", graph)
    graph = text_to_image(*plain) | picture
    graph["latent"] = node("VAEEncodeForInpaint", pixels=["picture", 0], vae=["model", 2], mask=["picture", 1], grow_mask_by=6)
    yield Case("inpainting, VAEEncodeForInpaint", graph)
    wide = text_to_image(plain[0], size * 2, *plain[2:])
    yield Case("twice the size", wide)
    tiled = {
        **wide,
        "decode": node(
            "VAEDecodeTiled", samples=["sample", 0], vae=["model", 2], tile_size=64, overlap=32, temporal_size=64, temporal_overlap=8
        ),
    }
    yield Case("VAEDecodeTiled", tiled, "twice the size")
    graph = text_to_image(*plain) | picture
    graph["large"] = node("ImageScale", image=["picture", 0], upscale_method="bilinear", width=size * 2, height=size * 2, crop="disabled")
    graph["latent"] = node(
        "VAEEncodeTiled", pixels=["large", 0], vae=["model", 2], tile_size=64, overlap=16, temporal_size=64, temporal_overlap=8
    )
    graph["sample"]["inputs"]["denoise"] = 0.5
    yield Case("VAEEncodeTiled, denoise 0.5", graph)


def _sampling_cases(plain: Plain) -> Iterator[Case]:
    _, _, steps, seed = plain
    graph = text_to_image(*plain)
    common = {name: graph["sample"]["inputs"][name] for name in ("model", "positive", "negative", "cfg", "sampler_name")}
    common |= {"noise_seed": seed, "steps": steps + 1, "scheduler": "karras"}
    graph["first"] = node(
        "KSamplerAdvanced",
        **common,
        latent_image=["latent", 0],
        add_noise="enable",
        start_at_step=0,
        end_at_step=2,
        return_with_leftover_noise="enable",
    )
    graph["sample"] = node(
        "KSamplerAdvanced",
        **common,
        latent_image=["first", 0],
        add_noise="disable",
        start_at_step=2,
        end_at_step=10000,
        return_with_leftover_noise="disable",
    )
    yield Case("KSamplerAdvanced, two stages", graph, "euler, karras")
    graph = _from_parts(plain, "dpmpp_2m", "karras")
    graph["guider"] = node("CFGGuider", model=["model", 0], positive=["positive", 0], negative=["negative", 0], cfg=5.0)
    yield Case("SamplerCustomAdvanced, CFGGuider", graph)
    graph = _from_parts(plain, "euler", "normal")
    graph["guider"] = node("BasicGuider", model=["model", 0], conditioning=["positive", 0])
    graph["split"] = node("SplitSigmas", sigmas=["sigmas", 0], step=1)
    graph["begin"] = node("SamplerCustomAdvanced", **{**graph["sample"]["inputs"], "sigmas": ["split", 0]})
    graph["sample"]["inputs"] |= {"sigmas": ["split", 1], "noise": ["none", 0], "latent_image": ["begin", 0]}
    graph["none"] = node("DisableNoise")
    yield Case("SamplerCustomAdvanced, BasicGuider, SplitSigmas", graph, "euler, normal")
    graph = _from_parts(plain, "euler", "karras")
    graph["sample"] = node(
        "SamplerCustom",
        model=["model", 0],
        add_noise=True,
        noise_seed=seed,
        cfg=5.0,
        positive=["positive", 0],
        negative=["negative", 0],
        sampler=["sampler", 0],
        sigmas=["sigmas", 0],
        latent_image=["latent", 0],
    )
    del graph["noise"]
    yield Case("SamplerCustom", graph)


def _from_parts(plain: Plain, sampler: str, scheduler: str) -> Graph:
    graph = text_to_image(*plain)
    graph |= {
        "noise": node("RandomNoise", noise_seed=plain[3]),
        "sampler": node("KSamplerSelect", sampler_name=sampler),
        "sigmas": node("BasicScheduler", model=["model", 0], scheduler=scheduler, steps=plain[2], denoise=1.0),
    }
    graph["sample"] = node(
        "SamplerCustomAdvanced",
        noise=["noise", 0],
        guider=["guider", 0],
        sampler=["sampler", 0],
        sigmas=["sigmas", 0],
        latent_image=["latent", 0],
    )
    return graph


def _controlled(plain: Plain, strength: float, start: float, end: float) -> Graph:
    graph = text_to_image(*plain)
    graph |= {"picture": node("LoadImage", image=PICTURE), "control": node("ControlNetLoader", control_net_name=CONTROLNET)}
    graph["apply"] = node(
        "ControlNetApplyAdvanced",
        positive=["positive", 0],
        negative=["negative", 0],
        control_net=["control", 0],
        image=["picture", 0],
        strength=strength,
        start_percent=start,
        end_percent=end,
    )
    graph["sample"]["inputs"] |= {"positive": ["apply", 0], "negative": ["apply", 1]}
    return graph


def with_seed(graph: Graph, seed: int) -> Graph:
    """*graph* with every seed replaced."""
    seeds = ("seed", "noise_seed")
    return {
        name: {**item, "inputs": {key: seed if key in seeds else value for key, value in item["inputs"].items()}}
        for name, item in graph.items()
    }
