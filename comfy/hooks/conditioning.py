"""Attaches hooks, masks and time ranges to conditioning, which is a list of [tensor, values] pairs."""

from __future__ import annotations

from typing import Any

Conditioning = list[Any]


def conditioning_set_values(conditioning: Conditioning, values: dict[str, Any] | None = None) -> Conditioning:
    """New pairs with updated values that share the tensors."""
    return [[tensor, {**settings, **(values or {})}] for tensor, settings, *_ in conditioning]


def conditioning_set_values_with_hooks(
    conditioning: Conditioning, values: dict[str, Any] | None = None, append_hooks: bool = True, cache: dict[Any, Any] | None = None
) -> Conditioning:
    """New pairs with updated values, in which hooks are combined with present ones, once per pair of groups in *cache*."""
    combined: dict[Any, Any] = {} if cache is None else cache
    result = []
    for tensor, settings, *_ in conditioning:
        updated = {**settings, **(values or {})}
        before, added = settings.get("hooks"), (values or {}).get("hooks")
        if append_hooks and before is not None and "hooks" in (values or {}):
            if added is not None and (before, added) not in combined:
                combined[(before, added)] = before.clone_and_combine(added)
            updated["hooks"] = before if added is None else combined[(before, added)]
        elif append_hooks and added is None and "hooks" not in settings:
            updated.pop("hooks", None)
        result.append([tensor, updated])
    return result


def set_hooks_for_conditioning(
    cond: Conditioning, hooks: Any, append_hooks: bool = True, cache: dict[Any, Any] | None = None
) -> Conditioning:
    """*cond* with *hooks* (None: unchanged)."""
    return cond if hooks is None else conditioning_set_values_with_hooks(cond, {"hooks": hooks}, append_hooks, cache)


def set_timesteps_for_conditioning(cond: Conditioning, timestep_range: tuple[float, float] | None) -> Conditioning:
    """*cond* limited to a range of the sampling, 0 to 1 (None: unchanged)."""
    if timestep_range is None:
        return cond
    return conditioning_set_values(cond, {"start_percent": timestep_range[0], "end_percent": timestep_range[1]})


def set_mask_for_conditioning(cond: Conditioning, mask: Any, set_cond_area: str, strength: float) -> Conditioning:
    """*cond* limited to *mask*, H×W or B×H×W (None: unchanged)."""
    if mask is None:
        return cond
    batch = mask.unsqueeze(0) if mask.ndim < 3 else mask
    return conditioning_set_values(cond, {"mask": batch, "set_area_to_bounds": set_cond_area != "default", "mask_strength": strength})


def combine_conditioning(conds: list[Conditioning]) -> Conditioning:
    """All pairs in one list."""
    return [pair for cond in conds for pair in cond]


def combine_with_new_conds(conds: list[Conditioning], new_conds: list[Conditioning]) -> list[Conditioning]:
    """Each conditioning followed by the new one at the same position."""
    return [combine_conditioning([cond, new]) for cond, new in zip(conds, new_conds)]


def set_conds_props(
    conds: list[Conditioning],
    strength: float,
    set_cond_area: str,
    mask: Any = None,
    hooks: Any = None,
    timesteps_range: tuple[float, float] | None = None,
    append_hooks: bool = True,
) -> list[Conditioning]:
    """Each conditioning with hooks, mask and time range."""
    cache: dict[Any, Any] = {}
    result = []
    for cond in conds:
        hooked = set_hooks_for_conditioning(cond, hooks, append_hooks, cache)
        masked = set_mask_for_conditioning(hooked, mask, set_cond_area, strength)
        result.append(set_timesteps_for_conditioning(masked, timesteps_range))
    return result


def set_conds_props_and_combine(
    conds: list[Conditioning],
    new_conds: list[Conditioning],
    strength: float = 1.0,
    set_cond_area: str = "default",
    mask: Any = None,
    hooks: Any = None,
    timesteps_range: tuple[float, float] | None = None,
    append_hooks: bool = True,
) -> list[Conditioning]:
    """*conds*, each followed by the one of *new_conds* with hooks, mask and time range."""
    return combine_with_new_conds(conds, set_conds_props(new_conds, strength, set_cond_area, mask, hooks, timesteps_range, append_hooks))


def set_default_conds_and_combine(
    conds: list[Conditioning],
    new_conds: list[Conditioning],
    hooks: Any = None,
    timesteps_range: tuple[float, float] | None = None,
    append_hooks: bool = True,
) -> list[Conditioning]:
    """*conds*, each followed by the one of *new_conds*, which acts only where no other conditioning does."""
    cache: dict[Any, Any] = {}
    marked = []
    for cond in new_conds:
        hooked = set_hooks_for_conditioning(cond, hooks, append_hooks, cache)
        marked.append(set_timesteps_for_conditioning(conditioning_set_values(hooked, {"default": True}), timesteps_range))
    return combine_with_new_conds(conds, marked)
