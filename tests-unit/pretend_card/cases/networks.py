"""ControlNets, and patches of models that are no weights."""

from __future__ import annotations

from typing import Any

import torch
from engine import Engine

import comfy.ldm.modules.attention as attention
from cases.registry import case
from cases.weights import with_lora
from comfy.patcher_extension import PatcherInjection, WrappersMP

SD15, SDXL = "small-sd15.safetensors", "small-sdxl.safetensors"


def controlled(e: Engine, positive: Any, negative: Any, name: str, picture: torch.Tensor, start: float = 0.0, end: float = 1.0) -> Any:
    net = e.first("ControlNetLoader", control_net_name=name)
    inputs = {"control_net": net, "image": picture, "strength": 0.8, "start_percent": start, "end_percent": end}
    return e.node("ControlNetApplyAdvanced", positive=positive, negative=negative, **inputs)


@case("ControlNet of SD 1.5", quick=True)
def control(e: Engine) -> Any:
    model, _, _, positive, negative = e.parts(SD15)
    conds = controlled(e, positive, negative, "small-sd15-1.safetensors", e.picture())
    return e.sample(model, *conds, steps=2), e.sample(model, positive, negative, steps=2)


@case("two ControlNets, a batch, a part of the path, a LoRA")
def controls(e: Engine) -> Any:
    model, clip, _, positive, negative = e.parts(SD15)
    conds = controlled(e, positive, negative, "small-sd15-1.safetensors", e.picture(96, 2))
    conds = controlled(e, *conds, "small-sd15-2.safetensors", e.picture(), 0.2, 0.8)
    inputs = {"lora_name": SD15, "strength_model": 0.8, "strength_clip": 0.7}
    changed, _ = e.node("LoraLoader", model=model, clip=clip, **inputs)
    return [e.sample(each, *conds, e.latent(batch=2), steps=4) for each in (model, changed)]


@case("two ControlNets of SDXL")
def sdxl_controls(e: Engine) -> Any:
    model, _, _, positive, negative = e.parts(SDXL)
    conds = controlled(e, positive, negative, "small-sdxl-1.safetensors", e.picture())
    return e.sample(model, *controlled(e, *conds, "small-sdxl-2.safetensors", e.picture()), steps=2)


SAMPLING: list[tuple[str, dict[str, Any]]] = [
    *[("ModelSamplingDiscrete", {"sampling": kind, "zsnr": kind == "v_prediction"}) for kind in ("eps", "v_prediction", "lcm", "x0")],
    ("ModelSamplingContinuousEDM", {"sampling": "edm", "sigma_max": 80.0, "sigma_min": 0.002}),
    ("ModelSamplingContinuousV", {"sampling": "v_prediction", "sigma_max": 80.0, "sigma_min": 0.03}),
    ("ModelSamplingSD3", {"shift": 3.0}),
    ("ModelSamplingAuraFlow", {"shift": 1.7}),
    ("ModelSamplingFlux", {"max_shift": 1.15, "base_shift": 0.5, "width": 512, "height": 512}),
]


@case("nodes that change what a model predicts")
def predictions(e: Engine) -> Any:
    model, _, _, positive, negative = e.parts()
    made = []
    for name, inputs in SAMPLING:
        changed = e.first(name, model=model, **inputs)
        for sampler, scheduler in (("euler_ancestral", "simple"), ("dpmpp_2m_sde", "sgm_uniform")):
            made.append(e.sample(changed, positive, negative, steps=2, sampler_name=sampler, scheduler=scheduler))
    return made


@case("FreeU and RescaleCFG")
def freeu(e: Engine) -> Any:
    model, _, _, positive, negative = e.parts()
    changed = [e.first(name, model=model, b1=1.1, b2=1.2, s1=0.9, s2=0.2) for name in ("FreeU", "FreeU_V2")]
    changed.append(e.first("RescaleCFG", model=model, multiplier=0.7))
    return [e.sample(each, positive, negative, steps=2) for each in changed]


class Moved:
    """A patch with a tensor of its own, which the patcher moves along."""

    def __init__(self) -> None:
        self.scale = torch.full((1, 1, 1), 0.9)

    def to(self, target: Any) -> Moved:
        if isinstance(target, torch.device):
            self.scale = self.scale.to(target)
        return self

    def __call__(self, n: torch.Tensor, context: torch.Tensor, value: Any = None, extra_options: Any = None) -> Any:
        return n, context * self.scale.to(context.dtype), context if value is None else value


@case("patches of attention and blocks", quick=True)
def attention_patches(e: Engine) -> Any:
    model, _, _, positive, negative = e.parts()
    changed = model.clone()
    changed.set_model_attn1_patch(lambda q, k, v, extra_options=None: (q * 1.02, k, v))
    changed.set_model_attn2_patch(Moved())
    changed.set_model_attn1_output_patch(lambda n, extra_options: n * 0.99)
    changed.set_model_attn2_output_patch(lambda n, extra_options: n * 1.01)
    changed.set_model_attn1_replace(
        lambda q, k, v, extra_options: attention.optimized_attention(q, k, v, extra_options["n_heads"]), "middle", 0
    )
    changed.set_model_input_block_patch(lambda h, options: h * 1.001)
    changed.set_model_output_block_patch(lambda h, skip, options: (h, skip * 0.999))
    return e.sample(changed, positive, negative, steps=2), e.sample(model, positive, negative, steps=2)


@case("functions around guidance")
def guidance(e: Engine) -> Any:
    model, _, _, positive, negative = e.parts()
    changed = model.clone()
    changed.set_model_unet_function_wrapper(lambda apply, inputs: apply(inputs["input"], inputs["timestep"], **inputs["c"]) * 1.01)
    changed.set_model_sampler_cfg_function(
        lambda inputs: inputs["uncond"] + (inputs["cond"] - inputs["uncond"]) * inputs["cond_scale"] * 0.9, disable_cfg1_optimization=True
    )
    changed.set_model_sampler_post_cfg_function(lambda inputs: inputs["denoised"] * 0.99)
    changed.set_model_sampler_pre_cfg_function(lambda inputs: [out * 1.001 for out in inputs["conds_out"]])
    sharpen = e.first("LatentOperationSharpen", sharpen_radius=2, sigma=1.0, alpha=0.3)
    sharpened = e.first("LatentApplyOperationCFG", model=model, operation=sharpen)
    toned = e.first("LatentApplyOperationCFG", model=model, operation=e.first("LatentOperationTonemapReinhard", multiplier=1.0))
    return [e.sample(each, positive, negative, steps=2) for each in (changed, sharpened, toned)]


@case("wrappers, injections, weight functions, other dtypes")
def wrappers(e: Engine) -> Any:
    model, _, _, positive, negative = e.parts()
    wrapped, seen = model.clone(), []
    for place in ("OUTER_SAMPLE", "SAMPLER_SAMPLE", "PREDICT_NOISE", "CALC_COND_BATCH", "APPLY_MODEL", "DIFFUSION_MODEL"):
        wrapped.add_wrapper(getattr(WrappersMP, place), lambda execute, *args, **kwargs: execute(*args, **kwargs))
    wrapped.set_injections("x", [PatcherInjection(lambda patcher: seen.append(1), lambda patcher: seen.append(2))])
    weighted = model.clone()
    weighted.add_weight_wrapper("diffusion_model.time_embed.0.weight", lambda weight: weight * 1.1)
    computed = e.first("ModelComputeDtype", model=model, dtype="fp32")
    made = [e.sample(each, positive, negative, steps=2) for each in (wrapped, weighted, computed, model)]
    return made, seen.count(1) == seen.count(2) > 0


@case("a model that needs another one")
def additional(e: Engine) -> Any:
    model, _, _, positive, negative = e.parts()
    changed = with_lora(e, model, "plain", 0.5)
    changed.set_additional_models("other", [e.checkpoint("starter-outlines.safetensors")[0].clone()])
    return e.sample(changed, positive, negative)
