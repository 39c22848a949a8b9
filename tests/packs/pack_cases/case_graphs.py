"""Pieces of the prompts that compare packs: small models, texts and pictures, and what is kept of the results."""

from typing import Any

from picture_prompts import node

Prompt = dict[str, dict[str, Any]]
Link = list[Any]

FAMILIES = {"sd15": (768, 0), "sdxl": (2048, 1280)}  # channels of a token and of the pooled vector
SAMPLED: dict[str, Any] = {"seed": 5, "steps": 3, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
EMPTY: dict[str, Any] = {"INT": 0, "FLOAT": 0.0, "STRING": "", "BOOLEAN": False}
CHECKPOINT, LORA, CONTROLNET = "small-sd15.safetensors", "small-whole.safetensors", "small-sd15.safetensors"
TEXT = "a (red:1.3) house by the sea, [old] paint"


def at(name: str, index: int = 0) -> Link:
    """A link to output *index* of the node *name*."""
    return [name, index]


def drawn(family: str = "sd15", size: int = 64) -> Prompt:
    """A "model" alone, with seeded conditioning and an empty latent."""
    width, pooled = FAMILIES[family]
    return {
        "model": node("UNETLoader", unet_name=f"small-{family}.safetensors", weight_dtype="default"),
        "positive": node("RandomConditioning", seed=1, tokens=77, width=width, pooled=pooled),
        "negative": node("RandomConditioning", seed=2, tokens=77, width=width, pooled=pooled),
        "latent": node("EmptyLatentImage", width=size, height=size, batch_size=1),
        **pictures(),
    }


def whole(text: str = TEXT, size: int = 64) -> Prompt:
    """A "checkpoint" (model, text encoder, VAE) with two encoded texts and an empty latent."""
    return {
        "checkpoint": node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT),
        "positive": node("CLIPTextEncode", text=text, clip=at("checkpoint", 1)),
        "negative": node("CLIPTextEncode", text="grey", clip=at("checkpoint", 1)),
        "latent": node("EmptyLatentImage", width=size, height=size, batch_size=1),
        "controlnet": node("ControlNetLoader", control_net_name=CONTROLNET),
        **pictures(),
    }


def pictures() -> Prompt:
    """The picture and mask "picture", the mask as "mask" and the batch "frames"."""
    return {
        "picture": node("RandomPictures", seed=4, width=128, height=128, count=1),
        "frames": node("RandomPictures", seed=6, width=64, height=64, count=3),
    }


def sample(model: Link, positive: Link | None = None, negative: Link | None = None, latent: Link | None = None, **more: Any) -> Any:
    """A KSampler, by default over "positive", "negative" and "latent"."""
    links = {"positive": positive or at("positive"), "negative": negative or at("negative"), "latent_image": latent or at("latent")}
    return node("KSampler", model=model, **{**links, **SAMPLED, **more})


def keep(graph: Prompt, *values: Link) -> Prompt:
    """*graph* keeping *values* as the files 0, 1, …; nodes that lead to none of them are left out."""
    kept = {f"keep{number}": node("Keep", value=value, name=str(number)) for number, value in enumerate(values)}
    wanted: Prompt = {}
    waiting = [at(name) for name in kept]
    everything = {**graph, **kept}
    while waiting:
        name = waiting.pop()[0]
        if name not in wanted:
            wanted[name] = everything[name]
            waiting += [value for value in wanted[name]["inputs"].values() if _is_link(value, everything)]
    return wanted


def _is_link(value: Any, graph: Prompt) -> bool:
    return isinstance(value, list) and len(value) == 2 and value[0] in graph


def filled(prompt: Prompt, described: dict[str, Any]) -> Prompt:
    """*prompt* with the default, or the first choice, of every widget that it leaves out. *described*: ``/object_info``."""
    return {name: {**one, "inputs": {**_defaults(described.get(one["class_type"], {})), **one["inputs"]}} for name, one in prompt.items()}


def _defaults(described: dict[str, Any]) -> dict[str, Any]:
    inputs = {**described.get("input", {}).get("optional", {}), **described.get("input", {}).get("required", {})}
    values = {name: _default(*spec) for name, spec in inputs.items()}
    return {name: value for name, value in values.items() if value is not None}


def _default(kind: Any, options: Any = None, *_: Any) -> Any:
    """What a page would send for an untouched widget; None for an input that is no widget."""
    settings = options if isinstance(options, dict) else {}
    plain = "COMBO" if isinstance(kind, list) else str(kind).partition(":")[0]
    if settings.get("forceInput") or plain not in (*EMPTY, "COMBO"):
        return None
    choices = kind if isinstance(kind, list) else settings.get("options", [])
    return settings.get("default", choices[0] if choices else EMPTY.get(plain))
