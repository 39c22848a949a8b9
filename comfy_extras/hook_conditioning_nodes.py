"""Nodes that attach hooks, masks and time ranges to conditioning, one or a pair of positive and negative."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_extras.node_inputs import real

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.hooks import HookGroup
    from comfy_extras.node_values import Conditioning

hooks_module = lazy_module("comfy.hooks")

CATEGORY = "advanced/hooks"
HOOKS = {"hooks": ("HOOKS",)}


def _conditionings(*names: str) -> dict[str, Any]:
    return dict.fromkeys(names, ("CONDITIONING",))


def _properties(*names: str) -> dict[str, Any]:
    """The inputs of nodes that set everything."""
    widgets = {"strength": real(1.0, 0.0, 10.0), "set_cond_area": (["default", "mask bounds"],)}
    optional = {"mask": ("MASK",), **HOOKS, "timesteps": ("TIMESTEPS_RANGE",)}
    return {"required": {**_conditionings(*names), **widgets}, "optional": optional}


class _Single:
    """Attributes of nodes for one conditioning."""

    EXPERIMENTAL = True
    RETURN_TYPES: tuple[str, ...] = ("CONDITIONING",)
    CATEGORY = f"{CATEGORY}/cond single"


class _Pair:
    """Attributes of nodes for a pair."""

    EXPERIMENTAL = True
    RETURN_TYPES, RETURN_NAMES = ("CONDITIONING", "CONDITIONING"), ("positive", "negative")
    CATEGORY = f"{CATEGORY}/cond pair"


class ConditioningSetProperties(_Single):
    """Gives a conditioning hooks, a mask and a time range."""

    FUNCTION = "set_properties"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return _properties("cond_NEW")

    def set_properties(
        self,
        cond_NEW: Conditioning,
        strength: float,
        set_cond_area: str,
        mask: Tensor | None = None,
        hooks: HookGroup | None = None,
        timesteps: tuple[float, float] | None = None,
    ) -> tuple[Conditioning]:
        """The new conditioning."""
        return tuple(hooks_module.set_conds_props([cond_NEW], strength, set_cond_area, mask, hooks, timesteps))


class ConditioningSetPropertiesAndCombine(_Single):
    """Gives a conditioning hooks, a mask and a time range, and adds it to another one."""

    FUNCTION = "set_properties"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return _properties("cond", "cond_NEW")

    def set_properties(
        self,
        cond: Conditioning,
        cond_NEW: Conditioning,
        strength: float,
        set_cond_area: str,
        mask: Tensor | None = None,
        hooks: HookGroup | None = None,
        timesteps: tuple[float, float] | None = None,
    ) -> tuple[Conditioning]:
        """*cond* followed by the new conditioning."""
        return tuple(hooks_module.set_conds_props_and_combine([cond], [cond_NEW], strength, set_cond_area, mask, hooks, timesteps))


class PairConditioningSetProperties(_Pair):
    """Gives a pair hooks, a mask and a time range."""

    FUNCTION = "set_properties"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return _properties("positive_NEW", "negative_NEW")

    def set_properties(
        self,
        positive_NEW: Conditioning,
        negative_NEW: Conditioning,
        strength: float,
        set_cond_area: str,
        mask: Tensor | None = None,
        hooks: HookGroup | None = None,
        timesteps: tuple[float, float] | None = None,
    ) -> tuple[Conditioning, Conditioning]:
        """The new pair."""
        return tuple(hooks_module.set_conds_props([positive_NEW, negative_NEW], strength, set_cond_area, mask, hooks, timesteps))


class PairConditioningSetPropertiesAndCombine(_Pair):
    """Gives a pair of conditionings hooks, a mask and a time range, and adds it to another pair."""

    FUNCTION = "set_properties"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return _properties("positive", "negative", "positive_NEW", "negative_NEW")

    def set_properties(
        self,
        positive: Conditioning,
        negative: Conditioning,
        positive_NEW: Conditioning,
        negative_NEW: Conditioning,
        strength: float,
        set_cond_area: str,
        mask: Tensor | None = None,
        hooks: HookGroup | None = None,
        timesteps: tuple[float, float] | None = None,
    ) -> tuple[Conditioning, Conditioning]:
        """The pair, each followed by its new side."""
        old, new = [positive, negative], [positive_NEW, negative_NEW]
        return tuple(hooks_module.set_conds_props_and_combine(old, new, strength, set_cond_area, mask, hooks, timesteps))


class PairConditioningCombine(_Pair):
    """Combines two pairs."""

    FUNCTION = "combine"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": _conditionings("positive_A", "negative_A", "positive_B", "negative_B")}

    def combine(
        self, positive_A: Conditioning, negative_A: Conditioning, positive_B: Conditioning, negative_B: Conditioning
    ) -> tuple[Conditioning, Conditioning]:
        """Both sides, A before B."""
        return tuple(hooks_module.set_conds_props_and_combine([positive_A, negative_A], [positive_B, negative_B]))


class ConditioningSetDefaultAndCombine(_Single):
    """Adds a conditioning that acts only where no other does."""

    FUNCTION = "set_default_and_combine"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": _conditionings("cond", "cond_DEFAULT"), "optional": HOOKS}

    def set_default_and_combine(
        self, cond: Conditioning, cond_DEFAULT: Conditioning, hooks: HookGroup | None = None
    ) -> tuple[Conditioning]:
        """*cond* followed by the default."""
        return tuple(hooks_module.set_default_conds_and_combine([cond], [cond_DEFAULT], hooks))


class PairConditioningSetDefaultAndCombine(_Pair):
    """Adds a pair that acts only where no other does."""

    FUNCTION = "set_default_and_combine"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": _conditionings("positive", "negative", "positive_DEFAULT", "negative_DEFAULT"), "optional": HOOKS}

    def set_default_and_combine(
        self,
        positive: Conditioning,
        negative: Conditioning,
        positive_DEFAULT: Conditioning,
        negative_DEFAULT: Conditioning,
        hooks: HookGroup | None = None,
    ) -> tuple[Conditioning, Conditioning]:
        """The pair, each followed by its default."""
        return tuple(hooks_module.set_default_conds_and_combine([positive, negative], [positive_DEFAULT, negative_DEFAULT], hooks))


class SetModelHooksOnCond(_Single):
    """Attaches hooks to a conditioning; used by packs, and not offered as a node."""

    CATEGORY = f"{CATEGORY}/manual"
    FUNCTION = "attach_hook"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {**_conditionings("conditioning"), **HOOKS}}

    def attach_hook(self, conditioning: Conditioning, hooks: HookGroup) -> tuple[Conditioning]:
        """The conditioning with *hooks*."""
        return (hooks_module.set_hooks_for_conditioning(conditioning, hooks),)


CONDITIONING_NODES: dict[type, tuple[str, str]] = {
    ConditioningSetProperties: ("ConditioningSetProperties", "Cond Set Props"),
    ConditioningSetPropertiesAndCombine: ("ConditioningSetPropertiesAndCombine", "Cond Set Props Combine"),
    PairConditioningSetProperties: ("PairConditioningSetProperties", "Cond Pair Set Props"),
    PairConditioningSetPropertiesAndCombine: ("PairConditioningSetPropertiesAndCombine", "Cond Pair Set Props Combine"),
    ConditioningSetDefaultAndCombine: ("ConditioningSetDefaultCombine", "Cond Set Default Combine"),
    PairConditioningSetDefaultAndCombine: ("PairConditioningSetDefaultCombine", "Cond Pair Set Default Combine"),
    PairConditioningCombine: ("PairConditioningCombine", "Cond Pair Combine"),
}
