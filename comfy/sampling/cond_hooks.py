"""Gathers the hooks of conditioning (:mod:`comfy.hooks`), registers them with the model and drops those that were not registered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module

if TYPE_CHECKING:
    from comfy.hooks.base import HookGroup
    from comfy.sampling.cond_regions import Cond
    from comfy.sampling.protocols import SampledPatcher

hooks_of_models = lazy_module("comfy.hooks")

Conds = dict[str, list[Any]]


def _entries(conds: Conds) -> Iterator[Cond]:
    for conditions in conds.values():
        yield from conditions


def get_hooks_from_cond(cond: Iterable[Cond], full_hooks: HookGroup) -> HookGroup:
    """Add the hooks of the entries and of their controls to *full_hooks*, each once; returns it."""
    controls: dict[Any, None] = {}
    for entry in cond:
        for hook in entry["hooks"].hooks if "hooks" in entry else ():
            full_hooks.add(hook)
        if "control" in entry:
            controls[entry["control"]] = None
    for control in controls:
        for group in control.get_extra_hooks():
            for hook in group.hooks:
                full_hooks.add(hook)
    return full_hooks


def preprocess_conds_hooks(conds: Conds) -> None:
    """Also give entries with a control the hooks of that control; equal combinations share one group."""
    combined: dict[Any, Any] = {}
    for entry in _entries(conds):
        extra = entry["control"].get_extra_hooks() if "control" in entry else []
        if extra:
            key = entry["control"], entry.get("hooks")
            if key not in combined:
                combined[key] = hooks_of_models.HookGroup.combine_all_hooks([*extra, entry.get("hooks")])
            if combined[key] is not None:
                entry["hooks"] = combined[key]


def filter_registered_hooks_on_conds(conds: Conds, model_options: dict[str, Any]) -> None:
    """Remove hooks that were not registered from the entries; entries that shared a group share the reduced one."""
    registered = model_options.get("registered_hooks")
    reduced: dict[Any, Any] = {}
    for entry in _entries(conds):
        hooks = entry.get("hooks")
        if registered is None:
            entry.pop("hooks", None)
        elif hooks is not None and not hooks.is_subset_of(registered):
            if hooks not in reduced:
                common = hooks.new_with_common_hooks(registered)
                reduced[hooks] = common if len(common) > 0 else None
            entry["hooks"] = reduced[hooks]


def get_total_hook_groups_in_conds(conds: Conds) -> int:
    """How many different hook groups the entries have; entries without hooks count as one group."""
    return len({entry.get("hooks") for entry in _entries(conds)})


def register_hooks(model: SampledPatcher, conds: Conds, model_options: dict[str, Any]) -> None:
    """Register the hooks of *conds* with *model* and *model_options* for this run."""
    hooks = hooks_of_models.HookGroup()
    for conditions in conds.values():
        get_hooks_from_cond(conditions, hooks)
    registered = hooks_of_models.HookGroup()
    target = hooks_of_models.create_target_dict(hooks_of_models.EnumWeightTarget.Model)
    for kind in (hooks_of_models.EnumHookType.TransformerOptions, hooks_of_models.EnumHookType.AdditionalModels):
        for hook in hooks.get_type(kind):
            hook.add_hook_patches(model, model_options, target, registered)
    model.register_all_hook_patches(hooks, target, model_options, registered)
    if len(registered) > 0:
        model_options["registered_hooks"] = registered


def additional_models(model_options: dict[str, Any] | None) -> list[Any]:
    """The patchers that registered hooks need beside the main model."""
    registered = (model_options or {}).get("registered_hooks")
    if registered is None:
        return []
    return [model for hook in registered.get_type(hooks_of_models.EnumHookType.AdditionalModels) for model in hook.models]
