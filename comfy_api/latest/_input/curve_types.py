"""Curves through points, evaluated as the page's curve editor draws them."""

import logging
from abc import ABC, abstractmethod
from typing import Any

from comfy.lazy_import import lazy_module

np = lazy_module("numpy")
log = logging.getLogger(__name__)

CurvePoint = tuple[float, float]


class CurveInput(ABC):
    """A function on the unit interval. Subclasses define ``points`` and ``interp``."""

    @property
    @abstractmethod
    def points(self) -> list[CurvePoint]:
        """The points that the curve goes through."""

    @abstractmethod
    def interp(self, x: float) -> float:
        """The curve's value at *x*."""

    def interp_array(self, xs: Any) -> Any:
        """The curve's values at *xs* (a numpy array), float64 of the same length."""
        return np.array([self.interp(float(x)) for x in xs], dtype=np.float64)

    def to_lut(self, size: int = 256) -> Any:
        """The curve's values at *size* equidistant places from 0 to 1, float64."""
        return self.interp_array(np.linspace(0.0, 1.0, size))

    @staticmethod
    def from_raw(data: Any) -> "CurveInput":
        """The curve for what the page sent: a dict with ``points`` and ``interpolation``, a list of points, or a curve."""
        if isinstance(data, CurveInput):
            return data
        is_dict = isinstance(data, dict)
        kind = data.get("interpolation", "monotone_cubic") if is_dict else "monotone_cubic"
        points = [(float(x), float(y)) for x, y in (data["points"] if is_dict else data)]
        if kind == "linear":
            return LinearCurve(points)
        if kind != "monotone_cubic":
            log.warning("The curve asks for %r interpolation, which is unknown; monotone cubic is used", kind)
        return MonotoneCubicCurve(points)


class _PointCurve(CurveInput):
    """Holds the points in order of x. ``_between`` evaluates the curve if there are at least two points."""

    def __init__(self, control_points: list[CurvePoint]) -> None:
        ordered = sorted(control_points, key=lambda point: point[0])
        self._points = [(float(x), float(y)) for x, y in ordered]
        self._xs = np.array([x for x, _ in self._points], dtype=np.float64)
        self._ys = np.array([y for _, y in self._points], dtype=np.float64)

    @property
    def points(self) -> list[CurvePoint]:
        """A copy of the points in order of x."""
        return list(self._points)

    def interp(self, x: float) -> float:
        """The curve's value at *x*: outside the points that of the nearest one, without points 0."""
        return float(self.interp_array(np.array([x], dtype=np.float64))[0])

    def interp_array(self, xs: Any) -> Any:
        """The curve's values at *xs*."""
        positions = np.asarray(xs, dtype=np.float64)
        if len(self._points) < 2:
            return np.full(positions.shape, self._points[0][1] if self._points else 0.0)
        return self._between(np.clip(positions, self._xs[0], self._xs[-1]))

    def _between(self, xs: Any) -> Any:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}(points={self._points})"


class LinearCurve(_PointCurve):
    """Straight lines between the points."""

    def _between(self, xs: Any) -> Any:
        return np.interp(xs, self._xs, self._ys)


class MonotoneCubicCurve(_PointCurve):
    """Cubic Hermite pieces that do not overshoot: Fritsch and Carlson's slopes (SIAM J. Numer. Anal. 17, 1980)."""

    def __init__(self, control_points: list[CurvePoint]) -> None:
        super().__init__(control_points)
        self._slopes = self._monotone_slopes()

    def _monotone_slopes(self) -> Any:
        if len(self._points) < 2:
            return np.zeros(len(self._points))
        widths = np.diff(self._xs)
        secants = np.divide(np.diff(self._ys), widths, out=np.zeros_like(widths), where=widths != 0)
        slopes = np.concatenate([secants[:1], (secants[:-1] + secants[1:]) / 2, secants[-1:]])
        slopes[1:-1][secants[:-1] * secants[1:] <= 0] = 0.0
        for piece, secant in enumerate(secants):
            if secant == 0:
                slopes[piece : piece + 2] = 0.0
                continue
            ratios = slopes[piece : piece + 2] / secant
            length_squared = float(ratios @ ratios)
            if length_squared > 9.0:
                slopes[piece : piece + 2] = 3.0 / np.sqrt(length_squared) * ratios * secant
        return slopes

    def _between(self, xs: Any) -> Any:
        right = np.clip(np.searchsorted(self._xs, xs, side="right"), 1, len(self._xs) - 1)
        left = right - 1
        width = self._xs[right] - self._xs[left]
        t = np.divide(xs - self._xs[left], width, out=np.zeros_like(xs), where=width != 0)
        rise = t * t * (3.0 - 2.0 * t)
        from_left = t * (1.0 - t) ** 2 * width * self._slopes[left]
        from_right = t * t * (t - 1.0) * width * self._slopes[right]
        return self._ys[left] * (1.0 - rise) + self._ys[right] * rise + from_left + from_right
