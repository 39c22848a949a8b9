"""Groups of hooks: what conditioning carries and what models are registered with."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from comfy.hooks.enums import EnumHookType
from comfy.hooks.keyframes import HookKeyframe, HookKeyframeGroup

if TYPE_CHECKING:
    from comfy.hooks.kinds import Hook, WeightHook


class HookGroup:
    """Hooks, each once, in order. Groups are compared by identity."""

    def __init__(self) -> None:
        self.hooks: list[Hook] = []
        self._hook_dict: dict[EnumHookType | None, list[Hook]] = {}

    def __len__(self) -> int:
        return len(self.hooks)

    def add(self, hook: Hook) -> None:
        """Append *hook* unless an equal one is there."""
        if hook not in self.hooks:
            self.hooks.append(hook)
            self._hook_dict.setdefault(hook.hook_type, []).append(hook)

    def remove(self, hook: Hook) -> None:
        """Remove *hook*, if it is there."""
        if hook in self.hooks:
            self.hooks.remove(hook)
            self._hook_dict[hook.hook_type].remove(hook)

    def get_type(self, hook_type: EnumHookType) -> list[Any]:
        """The hooks of one kind."""
        return self._hook_dict.get(hook_type, [])

    def contains(self, hook: Hook) -> bool:
        """Whether an equal hook is there."""
        return hook in self.hooks

    def is_subset_of(self, other: HookGroup) -> bool:
        """Whether *other* has all these hooks."""
        return set(self.hooks) <= set(other.hooks)

    def new_with_common_hooks(self, other: HookGroup) -> HookGroup:
        """Clones of the hooks that both have."""
        return group_of(hook.clone() for hook in self.hooks if other.contains(hook))

    def clone(self) -> HookGroup:
        """Clones of all hooks."""
        return group_of(hook.clone() for hook in self.hooks)

    def clone_and_combine(self, other: HookGroup | None) -> HookGroup:
        """Clones of these hooks, then of *other*'s."""
        return group_of(hook.clone() for hook in (*self.hooks, *(other.hooks if other is not None else ())))

    def set_keyframes_on_hooks(self, hook_kf: HookKeyframeGroup | None) -> None:
        """Let all hooks follow one copy of *hook_kf*."""
        shared = HookKeyframeGroup() if hook_kf is None else hook_kf.clone()
        for hook in self.hooks:
            hook.hook_keyframe = shared

    def get_hooks_for_clip_schedule(self) -> list[tuple[tuple[float, float], list[tuple[WeightHook, HookKeyframe | None]]]]:
        """The ranges of sampling in which no weight hook changes strength, and each one's keyframe in the range."""
        spans = {hook: _strength_spans(hook.hook_keyframe.keyframes) for hook in self.get_type(EnumHookType.Weight)}
        ends = {0.0, *itertools.chain.from_iterable(span for hook_spans in spans.values() for span, _ in hook_spans)}
        schedule = []
        for start, end in itertools.pairwise(sorted(ends)):
            holding = [
                (hook, next((keyframe for (low, high), keyframe in hook_spans if low < end and high > start), None))
                for hook, hook_spans in spans.items()
            ]
            schedule.append(((start, end), holding))
        return schedule

    def reset(self) -> None:
        """Bring all hooks back to their first keyframe."""
        for hook in self.hooks:
            hook.reset()

    @staticmethod
    def combine_all_hooks(hooks_list: list[HookGroup | None], require_count: int = 0) -> HookGroup | None:
        """All groups in one (the group itself if there is one, None if none). Raises ``ValueError`` for fewer than required."""
        groups = [group for group in hooks_list if group is not None]
        if len(groups) < require_count:
            raise ValueError(f"need at least {require_count} groups of hooks to combine, got {len(groups)}")
        if len(groups) < 2:
            return groups[0] if groups else None
        return group_of(hook.clone() for group in groups for hook in group.hooks)


def group_of(hooks: Iterable[Hook]) -> HookGroup:
    """A group of *hooks*."""
    group = HookGroup()
    for hook in hooks:
        group.add(hook)
    return group


def _strength_spans(keyframes: list[HookKeyframe]) -> list[tuple[tuple[float, float], HookKeyframe | None]]:
    """Ranges of sampling and the keyframe that holds in each; one of equal strength continues its predecessor's."""
    if not keyframes:
        return [((0.0, 1.0), None)]
    spans: list[tuple[tuple[float, float], HookKeyframe | None]] = []
    current = keyframes[0]
    for keyframe in keyframes:
        if keyframe.start_percent == current.start_percent:
            current = keyframe
        elif keyframe.start_percent > current.start_percent and not math.isclose(keyframe.strength, current.strength):
            spans.append(((current.start_percent, keyframe.start_percent), current))
            current = keyframe
    if not math.isclose(current.start_percent, 1.0):
        spans.append(((current.start_percent, 1.0), current))
    return spans
