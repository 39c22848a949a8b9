"""Foretelling how much a model's output changes from one step to the next, by how much its input does."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

STRIDE = 8  # every 8th cell along height and width is looked at


def sampled(x: Tensor) -> Tensor:
    """Every 8th cell of *x* (…×H×W), a view."""
    return x[..., ::STRIDE, ::STRIDE]


class StepEstimate:
    """What the last steps say of the next one. Belongs to one sampling.

    A step's output is foretold to change by as much of its input's change as before; small changes add up until a step is computed.
    """

    def __init__(self) -> None:
        self.expected = self._rate = self._size = self._change = None  # type: Tensor | None
        self.accumulated: Tensor | float = 0.0
        self._input: Tensor | None = None
        self._output: Tensor | None = None

    def is_small(self, x: Tensor, threshold: float, can_reuse: bool) -> bool:
        """Whether the outputs that were not computed, that for *x* included, change less than *threshold* in all.

        The sum begins anew when they do not, or when there is nothing to re-use.
        """
        self._change = None if self._input is None else (sampled(x) - self._input).abs().mean()
        if self._change is None or self._rate is None or self._size is None:
            return False
        self.expected = self._rate * self._change / self._size
        self.accumulated = self.accumulated + self.expected
        if can_reuse and self.accumulated < threshold:
            return True
        self.accumulated = 0.0
        return False

    def observe(self, x: Tensor, output: Tensor) -> Tensor | None:
        """Note that *output* was computed for *x*; returns by what share of its size it changed, if that is known."""
        found = None
        if self._output is not None and self._size is not None:
            change = (sampled(output) - self._output).abs().mean()
            found = change / self._size
            if self._change is not None:
                self._rate = change / self._change
        self._input, self._output, self._size = sampled(x).clone(), sampled(output).clone(), output.abs().mean()
        self._change = None
        return found
