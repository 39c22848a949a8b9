"""Runs the model over all conditionings of a step, as many at once as memory allows, and mixes the results by their weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import comfy.patcher_extension
from comfy.lazy_import import lazy_module
from comfy.sampling.cond_regions import Cond, PlacedCond, narrow_to

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.sampling.protocols import SampledModel

torch = lazy_module("torch")
model_management = lazy_module("comfy.model_management")

MEMORY_MARGIN = 1.5  # free memory must be this many times the estimated working memory of a call
SMALLEST_WEIGHT = 1e-37  # avoids a division by zero where no conditioning acts

Placed = tuple[PlacedCond, int]
Placing = Callable[[Cond, "Tensor", "Tensor"], PlacedCond | None]


def cond_equal_size(c1: Mapping[str, Any], c2: Mapping[str, Any]) -> bool:
    """Whether two sets of model conditioning can share one call."""
    return c1 is c2 or (c1.keys() == c2.keys() and all(value.can_concat(c2[name]) for name, value in c1.items()))


def can_concat_cond(c1: PlacedCond, c2: PlacedCond) -> bool:
    """Whether two placed conditionings can share one call: equal shapes, and the same control, patches and hooks."""
    same = c1.control is c2.control and c1.patches is c2.patches and c1.hooks is c2.hooks
    return same and c1.input_x.shape == c2.input_x.shape and cond_equal_size(c1.conditioning, c2.conditioning)


def cond_cat(c_list: Sequence[Mapping[str, Any]], device: Any = None) -> dict[str, Any]:
    """Join the values of several sets of model conditioning along the batch, and move them to *device* if it is given."""
    joined: dict[str, list[Any]] = defaultdict(list)
    for conds in c_list:
        for name, value in conds.items():
            joined[name].append(value)
    out = {name: values[0].concat(values[1:]) for name, values in joined.items()}
    return out if device is None else {name: value.to(device) if hasattr(value, "to") else value for name, value in out.items()}


def evaluate(
    model: SampledModel, conds: Sequence[list[Cond] | None], x_in: Tensor, timestep: Tensor, model_options: dict[str, Any], place: Placing
) -> list[Tensor]:
    """The model's denoised latent for each list of *conds* (zeros for None), each a new tensor like *x_in* (B×C×spatial).

    *timestep* holds the sigma of each batch entry. *place* cuts one conditioning out for the latent
    (:func:`comfy.sampling.cond_regions.place_cond`).

    Packs whose model wrapper mixes the results itself find ``out_conds``, ``out_counts``, ``area``, ``mult`` and ``batch_chunks`` by these
    names in the running frame, and replace ``out_conds`` and ``batch_chunks`` there.
    """
    out_conds = [torch.zeros_like(x_in) for _ in conds]
    out_counts = [torch.full_like(x_in, SMALLEST_WEIGHT) for _ in conds]
    waiting = _placed(model, conds, x_in, timestep, model_options, place)
    model.current_patcher.prepare_state(timestep, model_options)
    while waiting:
        batch = _next_batch(model, waiting, x_in)
        area, mult = [cut.area for cut, _ in batch], [cut.mult for cut, _ in batch]
        batch_chunks = len(batch)
        pictures = _run_batch(model, batch, timestep, model_options).chunk(batch_chunks)
        for number in range(batch_chunks):
            index = batch[number][1]
            _add(pictures[number], area[number], mult[number], out_conds[index], out_counts[index])
    for total, weight in zip(out_conds, out_counts):
        total.div_(weight)
    return out_conds


def _add(picture: Tensor, area: Any, mult: Tensor, total: Tensor, weight: Tensor) -> None:
    """Add *picture* times *mult* to the part *area* of *total* (None: all of it), and *mult* to that of *weight*."""
    if area is not None:
        total, weight = narrow_to(total, area), narrow_to(weight, area)
    total += picture * mult
    weight += mult


def _placed(
    model: SampledModel, conds: Sequence[list[Cond] | None], x_in: Tensor, timestep: Tensor, model_options: dict[str, Any], place: Placing
) -> list[Placed]:
    """The conditionings that act at this step, each with the number of its list. Default ones fill the regions that others leave."""
    placed = [
        (cut, index)
        for index, entries in enumerate(conds)
        for cond in entries or ()
        if "default" not in cond and (cut := place(cond, x_in, timestep)) is not None
    ]
    for index, entries in enumerate(conds):
        defaults = [cond for cond in entries or () if "default" in cond]
        if defaults:
            rest = _uncovered(x_in, [cut for cut, owner in placed if owner == index])
            if rest.max() > 0:
                cuts = [place(cond, x_in, timestep) for cond in defaults]
                placed += [(cut._replace(mult=rest), index) for cut in cuts if cut is not None]
    for cut, _ in placed:
        if cut.hooks is not None:
            model.current_patcher.prepare_hook_patches_current_keyframe(timestep, cut.hooks, model_options)
    return placed


def _uncovered(x_in: Tensor, placed: Sequence[PlacedCond]) -> Tensor:
    rest = torch.ones_like(x_in)
    for cut in placed:
        part = rest if cut.area is None else narrow_to(rest, cut.area)
        part -= cut.mult
    return rest.relu_()


def _next_batch(model: SampledModel, waiting: list[Placed], x_in: Tensor) -> list[Placed]:
    """Take from *waiting* the largest group that can share a call with its first entry and fits in memory, last entries first."""
    first = waiting[0][0]
    candidates = [number for number, (cut, _) in enumerate(waiting) if can_concat_cond(cut, first)][::-1]
    chosen = candidates[:1]
    if len(candidates) > 1:
        free_bytes = model_management.get_free_memory(x_in.device)
        for divisor in range(1, len(candidates) + 1):
            group = candidates[: len(candidates) // divisor]
            shapes = defaultdict(list)
            for number in group:
                for name, value in waiting[number][0].conditioning.items():
                    shapes[name].append(value.size())
            needed_bytes = model.memory_required([len(group) * first.input_x.shape[0], *first.input_x.shape[1:]], cond_shapes=shapes)
            if needed_bytes * MEMORY_MARGIN < free_bytes:
                chosen = group
                break
    return [waiting.pop(number) for number in chosen]


def _run_batch(model: SampledModel, batch: Sequence[Placed], timestep: Tensor, model_options: dict[str, Any]) -> Tensor:
    """What the model gives for *batch*, one after another along the batch."""
    cuts = [cut for cut, _ in batch]
    cond_or_uncond = [index for _, index in batch]
    latents = torch.cat([cut.input_x for cut in cuts])
    sigmas = torch.cat([timestep] * len(batch))
    arguments = cond_cat([cut.conditioning for cut in cuts])
    options = _transformer_options(model, cuts, cond_or_uncond, timestep, model_options)
    arguments["transformer_options"] = options
    control = cuts[0].control
    if control is not None:
        arguments["control"] = control.get_control(latents, sigmas, arguments, len(batch), options)
    wrapper = model_options.get("model_function_wrapper")
    if wrapper is None:
        return model.apply_model(latents, sigmas, **arguments)
    call = {"input": latents, "timestep": sigmas, "c": arguments, "cond_or_uncond": cond_or_uncond}
    return wrapper(model.apply_model, call)


def _transformer_options(
    model: SampledModel, cuts: Sequence[PlacedCond], cond_or_uncond: list[int], timestep: Tensor, model_options: dict[str, Any]
) -> dict[str, Any]:
    """A new dict that tells attention patches and wrappers about this call."""
    options = model.current_patcher.apply_hooks(hooks=cuts[0].hooks)
    options = comfy.patcher_extension.merge_nested_dicts(options, model_options.get("transformer_options", {}), copy_dict1=False)
    if cuts[0].patches is not None:
        options["patches"] = comfy.patcher_extension.merge_nested_dicts(options.get("patches", {}), cuts[0].patches)
    return {**options, "cond_or_uncond": list(cond_or_uncond), "uuids": [cut.uuid for cut in cuts], "sigmas": timestep}
