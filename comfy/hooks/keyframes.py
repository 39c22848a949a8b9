"""Strengths of hooks that change during sampling."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor

NOT_STARTED = 999999999.9


class Sampling(Protocol):
    """A schedule, which gives the noise level at each share of the sampling."""

    def percent_to_sigma(self, percent: float) -> float: ...


class HasSampling(Protocol):
    """A model with a schedule."""

    model_sampling: Sampling


def get_sorted_list_via_attr(objects: list[Any], attr: str) -> list[Any]:
    """*objects* ordered by an attribute; equal ones keep their order."""
    return sorted(objects, key=lambda item: getattr(item, attr))


class HookKeyframe:
    """The *strength* of hooks from the share *start_percent* of the sampling on, for at least *guarantee_steps* steps."""

    def __init__(self, strength: float, start_percent: float = 0.0, guarantee_steps: int = 1) -> None:
        self.strength = strength
        self.start_percent = float(start_percent)
        self.start_t = NOT_STARTED
        self.guarantee_steps = guarantee_steps

    def get_effective_guarantee_steps(self, max_sigma: Tensor) -> int:
        """The guaranteed number of steps; 0 if the keyframe begins before the sampling."""
        return 0 if self.start_t > max_sigma else self.guarantee_steps

    def clone(self) -> HookKeyframe:
        """An equal keyframe."""
        twin = HookKeyframe(self.strength, self.start_percent, self.guarantee_steps)
        twin.start_t = self.start_t
        return twin


class HookKeyframeGroup:
    """Keyframes ordered by their start, and the keyframe that holds at the current step."""

    def __init__(self) -> None:
        self.keyframes: list[HookKeyframe] = []
        self._current_keyframe: HookKeyframe | None = None
        self._current_used_steps = 0
        self._current_index = 0
        self._current_strength: float | None = None
        self._curr_t = -1.0

    @property
    def strength(self) -> float:
        """The current keyframe's strength; 1 without keyframes."""
        return 1.0 if self._current_keyframe is None else self._current_keyframe.strength

    def reset(self) -> None:
        """Go back to the first keyframe, for a new run."""
        self._current_used_steps = 0
        self._current_index = 0
        self._current_strength = None
        self._curr_t = -1.0
        self._set_first_as_current()

    def add(self, keyframe: HookKeyframe) -> None:
        """Insert *keyframe* in the order of starts."""
        self.keyframes = get_sorted_list_via_attr([*self.keyframes, keyframe], "start_percent")
        self._set_first_as_current()

    def _set_first_as_current(self) -> None:
        self._current_keyframe = self.keyframes[0] if self.keyframes else None

    def has_guarantee_steps(self) -> bool:
        """Whether a keyframe guarantees steps."""
        return any(keyframe.guarantee_steps > 0 for keyframe in self.keyframes)

    def has_index(self, index: int) -> bool:
        """Whether there is a keyframe *index*."""
        return 0 <= index < len(self.keyframes)

    def is_empty(self) -> bool:
        """Whether there are no keyframes."""
        return not self.keyframes

    def clone(self) -> HookKeyframeGroup:
        """A group with equal keyframes that begins at the first."""
        twin = HookKeyframeGroup()
        twin.keyframes = [keyframe.clone() for keyframe in self.keyframes]
        twin._set_first_as_current()
        return twin

    def initialize_timesteps(self, model: HasSampling) -> None:
        """Find the sigma at which each keyframe starts, from *model*'s schedule."""
        for keyframe in self.keyframes:
            keyframe.start_t = model.model_sampling.percent_to_sigma(keyframe.start_percent)

    def prepare_current_keyframe(self, curr_t: Any, transformer_options: dict[str, Any]) -> bool:
        """Move to the keyframe that holds at sigma *curr_t*; returns whether the strength may have changed."""
        if self.is_empty() or curr_t == self._curr_t:
            return False
        assert self._current_keyframe is not None
        max_sigma = torch.max(transformer_options["sample_sigmas"])
        index_before, strength_before = self._current_index, self._current_strength
        if self._current_used_steps >= self._current_keyframe.get_effective_guarantee_steps(max_sigma):
            self._advance(curr_t, max_sigma)
        self._current_used_steps += 1
        self._curr_t = curr_t
        return index_before != self._current_index and strength_before != self._current_strength

    def _advance(self, curr_t: Any, max_sigma: Tensor) -> None:
        for index in range(self._current_index + 1, len(self.keyframes)):
            candidate = self.keyframes[index]
            if candidate.start_t < curr_t:  # sigmas fall, so this one starts later
                return
            self._current_index, self._current_keyframe = index, candidate
            self._current_strength, self._current_used_steps = candidate.strength, 0
            if candidate.get_effective_guarantee_steps(max_sigma) > 0:
                return


class InterpolationMethod:
    """Curves from one strength to another."""

    LINEAR = "linear"
    EASE_IN = "ease_in"
    EASE_OUT = "ease_out"
    EASE_IN_OUT = "ease_in_out"
    _LIST = [LINEAR, EASE_IN, EASE_OUT, EASE_IN_OUT]

    @classmethod
    def get_weights(cls, num_from: float, num_to: float, length: int, method: str, reverse: bool = False) -> Iterable[Any]:
        """*length* values between the two numbers. Raises ``ValueError`` for an unknown method."""
        position = torch.linspace(0, 1, length, dtype=torch.float64)
        curves = {
            cls.LINEAR: lambda: position,
            cls.EASE_IN: lambda: position**2,
            cls.EASE_OUT: lambda: 1 - (1 - position) ** 2,
            cls.EASE_IN_OUT: lambda: (1 - torch.cos(position * torch.pi)) / 2,
        }
        if method not in curves:
            raise ValueError(f"unknown interpolation {method!r}; known: {', '.join(cls._LIST)}")
        values = num_from + (num_to - num_from) * curves[method]()
        return values.flip(0) if reverse else values
