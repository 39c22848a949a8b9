"""Prepares conditioning once before sampling: time ranges, the model's own form, counterparts, control."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy.sampling.cond_regions import Cond, create_cond_with_same_area_if_none, resolve_areas_and_cond_masks_multidim

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.sampling.protocols import SampledModel

torch = lazy_module("torch")
conditioning = lazy_module("comfy.conds")
PIXELS_PER_CELL = 8


def calculate_start_end_timesteps(model: SampledModel, conds: list[Cond]) -> None:
    """Replace entries that act in a range of the sampling by copies that hold the range as sigmas."""
    to_sigma = model.model_sampling.percent_to_sigma
    for index, cond in enumerate(conds):
        start, end = cond.get("start_percent"), cond.get("end_percent")
        if "clip_start_percent" in cond:
            start = max(cond["clip_start_percent"], 0.0 if start is None else start)
            end = min(cond["clip_end_percent"], 1.0 if end is None else end)
        sigmas = {name: to_sigma(percent) for name, percent in (("timestep_start", start), ("timestep_end", end)) if percent is not None}
        if sigmas:
            conds[index] = {**cond, **sigmas}


def pre_run_control(model: SampledModel, conds: list[Cond]) -> None:
    """Prepare every control of *conds* for *model*."""
    to_sigma = model.model_sampling.percent_to_sigma
    for cond in conds:
        if "control" in cond:
            cond["control"].pre_run(model, to_sigma)


def apply_empty_x_to_equal_area(
    conds: list[Cond], uncond: list[Cond], name: str, uncond_fill_func: Callable[[list[Any], int], Any]
) -> None:
    """Copy the values *name* of those entries of *conds* that have no area to such entries of *uncond*.

    Nothing is copied if one of these entries of *uncond* has a value. If there are more values than entries, later values win.
    """
    given = [cond[name] for cond in conds if "area" not in cond and cond.get(name) is not None]
    everywhere = [index for index, cond in enumerate(uncond) if "area" not in cond]
    if not everywhere or any(uncond[index].get(name) is not None for index in everywhere):
        return
    for number in range(len(given)):
        index = everywhere[number % len(everywhere)]
        uncond[index] = {**uncond[index], name: uncond_fill_func(given, number)}


def encode_model_conds(
    model_function: Callable[..., dict[str, Any]], conds: list[Cond], noise: Tensor, device: Any, prompt_type: str, **kwargs: Any
) -> list[Cond]:
    """Replace entries of *conds* by copies that also hold the results of *model_function* (``extra_conds``) in their ``model_conds``."""
    default_width = noise.shape[3] * PIXELS_PER_CELL if noise.ndim >= 4 else None
    defaults = {"width": default_width, "height": noise.shape[2] * PIXELS_PER_CELL, "prompt_type": prompt_type}
    for index, cond in enumerate(conds):
        encoded = model_function(**{**kwargs, **defaults, **cond, "device": device, "noise": noise})
        conds[index] = {**cond, "model_conds": {name: _moved(value, device) for name, value in {**cond["model_conds"], **encoded}.items()}}
    return conds


def _moved(value: Any, device: Any) -> Any:
    """*value* with its tensor on *device*, so that no step has to bring it there; kinds of conditioning that are not known here stay."""
    if type(value) not in (conditioning.CONDRegular, conditioning.CONDCrossAttn, conditioning.CONDNoiseShape):
        return value
    tensor = value.cond
    if not isinstance(tensor, torch.Tensor) or tensor.device.type != "cpu" or torch.device(device).type == "cpu":
        return value
    return type(value)(tensor.to(device))


def prepare(
    model: SampledModel,
    noise: Tensor,
    conds: dict[str, list[Cond]],
    device: Any,
    latent_image: Tensor | None = None,
    denoise_mask: Tensor | None = None,
    seed: int | None = None,
    latent_shapes: Any = None,
) -> dict[str, list[Cond]]:
    """Prepare *conds* ({"positive": entries, "negative": entries, …}) for sampling on *device*; lists are replaced, not changed."""
    for name in conds:
        conds[name] = list(conds[name])
        resolve_areas_and_cond_masks_multidim(conds[name], noise.shape[2:], device)
        calculate_start_end_timesteps(model, conds[name])
    if hasattr(model, "extra_conds"):
        for name in conds:
            conds[name] = encode_model_conds(
                model.extra_conds,
                conds[name],
                noise,
                device,
                name,
                latent_image=latent_image,
                denoise_mask=denoise_mask,
                seed=seed,
                latent_shapes=latent_shapes,
            )
    for name in conds:
        for cond in list(conds[name]):
            for other in conds:
                if other != name:
                    create_cond_with_same_area_if_none(conds[other], cond)
    for name in conds:
        for cond in conds[name]:
            for hook in cond["hooks"].hooks if "hooks" in cond else ():
                hook.initialize_timesteps(model)
        pre_run_control(model, conds[name])
    _share_control(conds)
    return conds


def _share_control(conds: dict[str, list[Cond]]) -> None:
    """Apply the control of the positive side to the other sides where it asks for this, and its boxes in any case."""
    positive = conds.get("positive", [])
    sharing = [cond for cond in positive if cond.get("control_apply_to_uncond", False)]
    for name in conds:
        if name != "positive":
            apply_empty_x_to_equal_area(sharing, conds[name], "control", lambda controls, number: controls[number])
            apply_empty_x_to_equal_area(positive, conds[name], "gligen", lambda told, number: told[number])
