"""The base of all hooks, and the groups of hooks that conditioning carries and models register."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, Self

from comfy.hooks.enums import EnumHookScope, EnumHookType
from comfy.hooks.keyframes import HasSampling, HookKeyframe, HookKeyframeGroup


class Hooked(Protocol):
    """What a hook needs of the patcher that it is registered for; ``model`` is the patcher's module."""

    model: Any

    def add_hook_patches(
        self, hook: Hook, patches: Mapping[Any, Any], strength_patch: float = 1.0, strength_model: float = 1.0
    ) -> list[Any]: ...


class _HookRef:
    """The identity that clones of a hook share."""


def default_should_register(
    hook: Hook, model: Hooked, model_options: dict[str, Any], target_dict: dict[str, Any], registered: HookGroup
) -> bool:
    """Register every hook."""
    return True


ShouldRegister = Callable[["Hook", Hooked, dict[str, Any], dict[str, Any], "HookGroup"], bool]


class Hook:
    """The base of all hooks. A hook equals its clones, whatever their current strengths."""

    def __init__(
        self,
        hook_type: EnumHookType | None = None,
        hook_ref: _HookRef | None = None,
        hook_id: str | None = None,
        hook_keyframe: HookKeyframeGroup | None = None,
        hook_scope: EnumHookScope = EnumHookScope.AllConditioning,
    ) -> None:
        self.hook_type = hook_type
        self.hook_ref = hook_ref or _HookRef()
        self.hook_id = hook_id
        self.hook_keyframe = hook_keyframe or HookKeyframeGroup()
        self.hook_scope = hook_scope
        self.custom_should_register: ShouldRegister = default_should_register

    @property
    def strength(self) -> float:
        """The strength at the current step."""
        return self.hook_keyframe.strength

    def initialize_timesteps(self, model: HasSampling) -> None:
        """Prepare a run with *model*'s schedule."""
        self.reset()
        self.hook_keyframe.initialize_timesteps(model)

    def reset(self) -> None:
        """Go back to the first keyframe."""
        self.hook_keyframe.reset()

    def clone(self) -> Self:
        """An equal hook that shares the keyframes and the contents."""
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def should_register(self, model: Hooked, model_options: dict[str, Any], target_dict: dict[str, Any], registered: HookGroup) -> bool:
        """Whether the hook acts in this run."""
        return self.custom_should_register(self, model, model_options, target_dict, registered)

    def add_hook_patches(self, model: Hooked, model_options: dict[str, Any], target_dict: dict[str, Any], registered: HookGroup) -> bool:
        """Prepare *model* for this hook; returns whether it acts. Raises ``NotImplementedError`` for kinds that cannot be registered."""
        raise NotImplementedError(f"{type(self).__name__} cannot be registered on a model")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hook) and type(self) is type(other) and self.hook_ref == other.hook_ref

    def __hash__(self) -> int:
        return hash(self.hook_ref)


class HookGroup:
    """An ordered group of hooks without duplicates. Groups are compared by identity."""

    def __init__(self) -> None:
        self.hooks: list[Hook] = []
        self._hook_dict: dict[EnumHookType | None, list[Hook]] = {}

    def __len__(self) -> int:
        return len(self.hooks)

    def add(self, hook: Hook) -> None:
        """Append *hook* unless the group has an equal one."""
        if hook not in self.hooks:
            self.hooks.append(hook)
            self._hook_dict.setdefault(hook.hook_type, []).append(hook)

    def remove(self, hook: Hook) -> None:
        """Remove *hook* if the group has it."""
        if hook in self.hooks:
            self.hooks.remove(hook)
            self._hook_dict[hook.hook_type].remove(hook)

    def get_type(self, hook_type: EnumHookType) -> list[Any]:
        """The hooks of one kind."""
        return self._hook_dict.get(hook_type, [])

    def contains(self, hook: Hook) -> bool:
        """Whether the group has an equal hook."""
        return hook in self.hooks

    def is_subset_of(self, other: HookGroup) -> bool:
        """Whether *other* has all these hooks."""
        return set(self.hooks) <= set(other.hooks)

    def new_with_common_hooks(self, other: HookGroup) -> HookGroup:
        """A group of clones of the hooks that both groups have."""
        return group_of(hook.clone() for hook in self.hooks if other.contains(hook))

    def clone(self) -> HookGroup:
        """A group of clones of all hooks."""
        return group_of(hook.clone() for hook in self.hooks)

    def clone_and_combine(self, other: HookGroup | None) -> HookGroup:
        """A group of clones of these hooks, then of those of *other*."""
        return group_of(hook.clone() for hook in (*self.hooks, *(other.hooks if other is not None else ())))

    def set_keyframes_on_hooks(self, hook_kf: HookKeyframeGroup | None) -> None:
        """Make all hooks follow one copy of *hook_kf*."""
        shared = HookKeyframeGroup() if hook_kf is None else hook_kf.clone()
        for hook in self.hooks:
            hook.hook_keyframe = shared

    def get_hooks_for_clip_schedule(self) -> list[tuple[tuple[float, float], list[tuple[Hook, HookKeyframe | None]]]]:
        """The ranges of the sampling in which no weight hook changes its strength, each with the hooks and their keyframes."""
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
        """Reset all hooks to their first keyframe."""
        for hook in self.hooks:
            hook.reset()

    @staticmethod
    def combine_all_hooks(hooks_list: list[HookGroup | None], require_count: int = 0) -> HookGroup | None:
        """Join all groups: a single group is returned itself, no group gives None. Raises ``ValueError`` for fewer than *require_count*."""
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
    """The ranges of the sampling with the keyframe that holds in each; a keyframe of equal strength extends the range before it."""
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
