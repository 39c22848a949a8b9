"""The value of the levels control: an input range with an optional midpoint."""

import math
from typing import Any

from comfy.lazy_import import lazy_module

np = lazy_module("numpy")

_NARROW = 1e-10  # below this width the range is a step


class RangeInput:
    """Maps *min_val* … *max_val* to 0 … 1; a power curve maps *midpoint* (0 to 1 within the range) to one half."""

    def __init__(self, min_val: float, max_val: float, midpoint: float | None = None) -> None:
        self.min_val = min_val
        self.max_val = max_val
        self.midpoint = midpoint

    @staticmethod
    def from_raw(data: Any) -> "RangeInput":
        """The range for what the page sent, a dict with ``min``, ``max`` and ``midpoint``. Raises ``TypeError`` for anything else."""
        if isinstance(data, RangeInput):
            return data
        if not isinstance(data, dict):
            raise TypeError(f"a range is a dict with min, max and midpoint, not {type(data).__name__}")
        midpoint = data.get("midpoint")
        return RangeInput(float(data.get("min", 0.0)), float(data.get("max", 1.0)), None if midpoint is None else float(midpoint))

    def to_lut(self, size: int = 256) -> Any:
        """The results of the mapping for *size* equidistant values from 0 to 1, float64."""
        values = np.linspace(0.0, 1.0, size, dtype=np.float64)
        width = self.max_val - self.min_val
        if abs(width) < _NARROW:
            return (values >= self.min_val).astype(np.float64)
        scaled = np.clip((values - self.min_val) / width, 0.0, 1.0)
        if self.midpoint is None or self.midpoint <= 0:
            return scaled
        return scaled ** (1.0 / max(-math.log2(self.midpoint), 0.001))

    def __repr__(self) -> str:
        return f"RangeInput({self.min_val}, {self.max_val}, midpoint={self.midpoint})"
