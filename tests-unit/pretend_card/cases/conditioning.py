"""Conditioning nodes, texts and text encoders."""

from __future__ import annotations

from typing import Any

from engine import Engine

import comfy.hooks
from cases.registry import case

LONG = "many words in a row about rivers and hills " * 12
SDXL = "small-sdxl.safetensors"


@case("conditioning joined, averaged, zeroed")
def joined(e: Engine) -> Any:
    model, clip, _, positive, negative = e.parts()
    other, long = e.text(clip, "a circle"), e.text(clip, LONG)
    kinds = [
        e.first("ConditioningCombine", conditioning_1=positive, conditioning_2=other),
        e.first("ConditioningConcat", conditioning_to=positive, conditioning_from=other),
        e.first("ConditioningAverage", conditioning_to=positive, conditioning_from=other, conditioning_to_strength=0.4),
        e.first("ConditioningAverage", conditioning_to=long, conditioning_from=positive, conditioning_to_strength=0.4),
    ]
    made = [e.sample(model, kind, negative, steps=2) for kind in kinds]
    return made, e.sample(model, positive, e.first("ConditioningZeroOut", conditioning=negative), steps=2)


@case("areas and masks")
def areas(e: Engine) -> Any:
    model, clip, _, positive, negative = e.parts()
    other = e.text(clip, "a circle")
    area = e.first("ConditioningSetArea", conditioning=positive, width=64, height=64, x=32, y=0, strength=1.0)
    share = e.first("ConditioningSetAreaPercentage", conditioning=other, width=0.5, height=0.5, x=0.0, y=0.5, strength=0.8)
    both = e.first("ConditioningCombine", conditioning_1=area, conditioning_2=share)
    made = [e.sample(model, e.first("ConditioningCombine", conditioning_1=both, conditioning_2=positive), negative, e.latent(128), steps=2)]
    for bounds in ("default", "mask bounds"):
        masked = e.first("ConditioningSetMask", conditioning=positive, mask=e.mask(128), strength=0.9, set_cond_area=bounds)
        combined = e.first("ConditioningCombine", conditioning_1=masked, conditioning_2=other)
        made.append(e.sample(model, combined, negative, e.latent(128, 2), steps=2))
    return made


@case("parts of the path")
def ranges(e: Engine) -> Any:
    model, clip, _, positive, negative = e.parts()
    early = e.first("ConditioningSetTimestepRange", conditioning=positive, start=0.0, end=0.5)
    late = e.first("ConditioningSetTimestepRange", conditioning=e.text(clip, "a circle"), start=0.5, end=1.0)
    return e.sample(model, e.first("ConditioningCombine", conditioning_1=early, conditioning_2=late), negative, steps=5)


@case("texts of different lengths, a batch of three")
def lengths(e: Engine) -> Any:
    model, clip, _, positive, negative = e.parts()
    combined = e.first("ConditioningCombine", conditioning_1=e.text(clip, LONG), conditioning_2=positive)
    return e.sample(model, combined, negative, e.latent(batch=3))


@case("conditioning where nothing else is")
def fallback(e: Engine) -> Any:
    model, clip, _, positive, negative = e.parts()
    masked = {"strength": 0.8, "set_cond_area": "default", "mask": e.mask(128), "hooks": None, "timesteps_range": None}
    new = [e.text(clip, "a circle"), negative]
    conds = comfy.hooks.set_conds_props_and_combine(conds=[positive, negative], new_conds=new, **masked)
    conds = comfy.hooks.set_default_conds_and_combine(conds=conds, new_conds=[positive, negative])
    return e.sample(model, *conds, e.latent(128))


@case("texts", quick=True)
def texts(e: Engine) -> Any:
    clip = e.checkpoint()[1]
    skipping = e.first("CLIPSetLastLayer", clip=clip, stop_at_clip_layer=-2)
    written = ("a (red:1.4) house, ((old)) [grey] \\(quiet\\)", LONG, "", "a photo")
    return [e.text(clip, words) for words in written], e.text(skipping, "a handwritten seven")


@case("SDXL")
def sdxl(e: Engine) -> Any:
    model, clip, vae, _, negative = e.parts(SDXL)
    sizes = {"width": 768, "height": 640, "crop_w": 16, "crop_h": 8, "target_width": 512, "target_height": 512}
    positive = e.first("CLIPTextEncodeSDXL", clip=clip, **sizes, text_g="a cat", text_l="a (red:1.3) cat " * 30)
    skipping = e.first("CLIPSetLastLayer", clip=clip, stop_at_clip_layer=-3)
    samples = e.sample(model, positive, negative, steps=2)
    embedded = e.text(clip, "embedding:small_sdxl a cat")
    return positive, samples, e.node("VAEDecode", samples={"samples": samples}, vae=vae), e.text(skipping, "a cat"), embedded


@case("parts from files of their own")
def parts(e: Engine) -> Any:
    name = "small-sd15.safetensors"
    model = e.first("UNETLoader", unet_name=name, weight_dtype="default")
    clip = e.first("CLIPLoader", clip_name=name, type="stable_diffusion")
    on_host = e.first("CLIPLoader", clip_name=name, type="stable_diffusion", device="cpu")
    vae = e.first("VAELoader", vae_name=name)
    samples = e.sample(model, e.text(clip, "a cat"), e.text(on_host, "a dog"), steps=2)
    return samples, e.node("VAEDecode", samples={"samples": samples}, vae=vae)
