"""Nodes that make keyframes: strengths of hooks that change during the sampling."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_extras.node_inputs import boolean, real, whole

if TYPE_CHECKING:
    from comfy.hooks import HookKeyframeGroup

log = logging.getLogger(__name__)

hooks_module = lazy_module("comfy.hooks")

CATEGORY = "advanced/hooks/scheduling"
INTERPOLATIONS = ["linear", "ease_in", "ease_out", "ease_in_out"]
_PREVIOUS_KEYFRAMES = {"prev_hook_kf": ("HOOK_KEYFRAMES",)}


def _percent(default: float) -> tuple[str, dict[str, Any]]:
    return real(default, 0.0, 1.0, 0.001)


class _MakesKeyframes:
    """Attributes of nodes that return keyframes, and the way they add them."""

    EXPERIMENTAL = True
    RETURN_TYPES, RETURN_NAMES = ("HOOK_KEYFRAMES",), ("HOOK_KF",)
    CATEGORY = CATEGORY

    @staticmethod
    def _after(before: HookKeyframeGroup | None, strengths: Sequence[float], percents: Iterable[float], said: bool) -> HookKeyframeGroup:
        """A clone of *before* with keyframes, of which the first is used for at least one step."""
        group: HookKeyframeGroup = hooks_module.HookKeyframeGroup() if before is None else before.clone()
        for index, (percent, strength) in enumerate(zip(percents, strengths)):
            group.add(hooks_module.HookKeyframe(strength=strength, start_percent=percent, guarantee_steps=1 if index == 0 else 0))
            if said:
                log.info("keyframe of hooks from %s on: strength %s", percent, strength)
        return group

    @staticmethod
    def _between(first: float, last: float, count: int, method: str = INTERPOLATIONS[0]) -> list[float]:
        return list(hooks_module.InterpolationMethod.get_weights(num_from=first, num_to=last, length=count, method=method))


class CreateHookKeyframe(_MakesKeyframes):
    """Makes one keyframe."""

    FUNCTION = "create_hook_keyframe"
    SEARCH_ALIASES = ["hook scheduling", "strength animation", "timed hook"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"strength_mult": real(1.0, -20.0, 20.0), "start_percent": _percent(0.0)}, "optional": _PREVIOUS_KEYFRAMES}

    def create_hook_keyframe(
        self, strength_mult: float, start_percent: float, prev_hook_kf: HookKeyframeGroup | None = None
    ) -> tuple[HookKeyframeGroup]:
        """*prev_hook_kf* and the new one."""
        return (self._after(prev_hook_kf, [strength_mult], [start_percent], False),)


class CreateHookKeyframesInterpolated(_MakesKeyframes):
    """Makes keyframes along a curve."""

    FUNCTION = "create_hook_keyframes"
    SEARCH_ALIASES = ["ease hook strength", "smooth hook transition", "interpolate keyframes"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        required = {
            "strength_start": real(1.0, 0.0, 10.0, 0.001),
            "strength_end": real(1.0, 0.0, 10.0, 0.001),
            "interpolation": (INTERPOLATIONS,),
            "start_percent": _percent(0.0),
            "end_percent": _percent(1.0),
            "keyframes_count": whole(5, 2, 100, 1),
            "print_keyframes": boolean(False, advanced=True),
        }
        return {"required": required, "optional": _PREVIOUS_KEYFRAMES}

    def create_hook_keyframes(
        self,
        strength_start: float,
        strength_end: float,
        interpolation: str,
        start_percent: float,
        end_percent: float,
        keyframes_count: int,
        print_keyframes: bool = False,
        prev_hook_kf: HookKeyframeGroup | None = None,
    ) -> tuple[HookKeyframeGroup]:
        """*prev_hook_kf* and the new ones, evenly spaced in time; *print_keyframes* logs them."""
        percents = self._between(start_percent, end_percent, keyframes_count)
        strengths = self._between(strength_start, strength_end, keyframes_count, interpolation)
        return (self._after(prev_hook_kf, strengths, percents, print_keyframes),)


class CreateHookKeyframesFromFloats(_MakesKeyframes):
    """Makes a keyframe per number."""

    FUNCTION = "create_hook_keyframes"
    SEARCH_ALIASES = ["batch keyframes", "strength list to keyframes"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        required = {
            "floats_strength": ("FLOATS", {"default": -1, "min": -1, "step": 0.001, "forceInput": True}),
            "start_percent": _percent(0.0),
            "end_percent": _percent(1.0),
            "print_keyframes": boolean(False, advanced=True),
        }
        return {"required": required, "optional": _PREVIOUS_KEYFRAMES}

    def create_hook_keyframes(
        self,
        floats_strength: float | Iterable[float],
        start_percent: float,
        end_percent: float,
        prev_hook_kf: HookKeyframeGroup | None = None,
        print_keyframes: bool = False,
    ) -> tuple[HookKeyframeGroup]:
        """*prev_hook_kf* and the new ones, evenly spaced. Raises ``TypeError`` for what is neither a number nor numbers."""
        if isinstance(floats_strength, int | float):
            strengths = [float(floats_strength)]
        elif isinstance(floats_strength, Iterable):
            strengths = list(floats_strength)
        else:
            raise TypeError(f"floats_strength must be a number or several, not {type(floats_strength).__name__}")
        percents = self._between(start_percent, end_percent, len(strengths))
        return (self._after(prev_hook_kf, strengths, percents, print_keyframes),)


KEYFRAME_NODES: dict[type, tuple[str, str]] = {
    CreateHookKeyframe: ("CreateHookKeyframe", "Create Hook Keyframe"),
    CreateHookKeyframesInterpolated: ("CreateHookKeyframesInterpolated", "Create Hook Keyframes Interp."),
    CreateHookKeyframesFromFloats: ("CreateHookKeyframesFromFloats", "Create Hook Keyframes From Floats"),
}
