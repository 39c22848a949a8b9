"""LoRAs of every kind, merges, hooks."""

from __future__ import annotations

import pathlib
from typing import Any

from engine import Engine
from small_files import KINDS

import comfy.hooks
import comfy.sd
import comfy.utils
import folder_paths
from cases.registry import case

OTHER = "starter-outlines.safetensors"


def _lora(kind: str) -> None:
    @case(f"LoRA {kind}", quick=kind == "dora")
    def run(e: Engine) -> Any:
        model, clip, _, positive, negative = e.parts()
        made = []
        for strengths in ((0.8, 0.7), (0.3, 1.0)):
            inputs = {"lora_name": f"starter-{kind}.safetensors", "strength_model": strengths[0], "strength_clip": strengths[1]}
            changed, text = e.node("LoraLoader", model=model, clip=clip, **inputs)
            made.append(e.sample(changed, e.text(text, "a seven"), negative, steps=2))
        return made, e.sample(model, positive, negative, steps=2)


for _kind in (*KINDS, "text"):
    _lora(_kind)


def lora_file(name: str) -> Any:
    """The tensors of a LoRA file."""
    return comfy.utils.load_torch_file(str(pathlib.Path(folder_paths.get_full_path_or_raise("loras", name))))


def with_lora(e: Engine, model: Any, kind: str, strength: float) -> Any:
    return e.first("LoraLoaderModelOnly", model=model, lora_name=f"starter-{kind}.safetensors", strength_model=strength)


@case("two LoRAs, one, two, none", quick=True)
def two_loras(e: Engine) -> Any:
    model, _, _, positive, negative = e.parts()
    one = with_lora(e, model, "plain", 0.8)
    two = with_lora(e, one, "loha", 0.5)
    return [e.sample(each, positive, negative, steps=2) for each in (two, one, two, model)]


@case("LoRAs beside the weights")
def bypass(e: Engine) -> Any:
    model, clip, _, positive, negative = e.parts()
    both = {**lora_file("starter-plain.safetensors"), **lora_file("starter-text.safetensors")}
    changed, text = comfy.sd.load_bypass_lora_for_models(model, clip, both, 0.8, 0.7)
    other, _ = comfy.sd.load_bypass_lora_for_models(model, None, lora_file("starter-lokr.safetensors"), 0.5, 0)
    made = e.sample(changed, e.text(text, "a seven"), negative), e.sample(other, positive, negative)
    return made, e.sample(model, positive, negative)


@case("merged with another model")
def merged(e: Engine) -> Any:
    model, _, _, positive, negative = e.parts()
    other = e.checkpoint(OTHER)[0]
    both = model.clone()
    for key, patch in other.get_key_patches("diffusion_model.").items():
        both.add_patches({key: patch}, 0.4, 0.6)
    return e.sample(both, positive, negative), e.sample(model, positive, negative)


@case("hook of another model's weights")
def model_hook(e: Engine) -> Any:
    model, _, _, positive, negative = e.parts()
    other = comfy.hooks.get_patch_weights_from_model(e.checkpoint(OTHER)[0])
    hook = comfy.hooks.create_hook_model_as_lora(other, None, 0.5, 0.0)
    return e.sample(model, comfy.hooks.set_hooks_for_conditioning(positive, hook), negative)


@case("LoRA hooks", quick=True)
def hooks(e: Engine) -> Any:
    model, _, _, positive, negative = e.parts()
    hook = comfy.hooks.create_hook_lora(lora_file("starter-plain.safetensors"), 0.8, 0.7)
    hooked = comfy.hooks.set_hooks_for_conditioning(positive, hook)
    both = e.sample(model, hooked, comfy.hooks.set_hooks_for_conditioning(negative, hook), steps=2)
    return e.sample(model, hooked, negative, steps=2), both, e.sample(model, positive, negative, steps=2)


def _keyframes() -> Any:
    frames = comfy.hooks.HookKeyframeGroup()
    for strength, start in ((0.2, 0.0), (1.0, 0.5)):
        frames.add(comfy.hooks.HookKeyframe(strength=strength, start_percent=start))
    return frames


@case("two groups of hooks, keyframes, a LoRA")
def two_groups(e: Engine) -> Any:
    model, _, _, positive, negative = e.parts()
    moving = comfy.hooks.create_hook_lora(lora_file("starter-plain.safetensors"), 0.8, 0.0)
    moving.set_keyframes_on_hooks(_keyframes())
    still = comfy.hooks.create_hook_lora(lora_file("starter-loha.safetensors"), 0.5, 0.0)
    groups = [comfy.hooks.set_hooks_for_conditioning(positive, hook) for hook in (moving, still)]
    combined = e.first("ConditioningCombine", conditioning_1=groups[0], conditioning_2=groups[1])
    return [e.sample(each, combined, negative, steps=4) for each in (model, with_lora(e, model, "lokr", 0.8))]


@case("hooks on the text encoder")
def text_hooks(e: Engine) -> Any:
    clip = e.checkpoint()[1]
    hook = comfy.hooks.create_hook_lora(lora_file("starter-text.safetensors"), 0.0, 0.7)
    hook.set_keyframes_on_hooks(_keyframes())
    hooked = clip.clone()
    hooked.patcher.forced_hooks = hook.clone()
    hooked.use_clip_schedule, hooked.apply_hooks_to_conds = True, hook
    hooked.patcher.register_all_hook_patches(hook, comfy.hooks.create_target_dict(comfy.hooks.EnumWeightTarget.Clip))
    scheduled = hooked.encode_from_tokens_scheduled(hooked.tokenize("a seven"))
    return [cond[0] for cond in scheduled], e.text(clip, "a seven")


@case("reading and saving weights")
def reading(e: Engine) -> Any:
    model, _, _, positive, negative = e.parts()
    changed = with_lora(e, model, "plain", 0.8)
    e.sample(changed, positive, negative, steps=1)
    saved = changed.model_state_dict_for_saving(prefix="diffusion_model.")
    return dict(list(saved.items())[:40]), e.sample(model, positive, negative, steps=1)
