"""Lagrange polynomials over past times, of which multistep solvers integrate the model's answers. Numbers are Python's, so double."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from comfy.lazy_import import lazy_module

polynomial = lazy_module("numpy.polynomial.polynomial")


def lagrange_polynomial(times: Sequence[float], which: int) -> Any:
    """Coefficients, lowest power first, of the polynomial that is 1 at ``times[which]`` and 0 at the others (a numpy array)."""
    others = [time for number, time in enumerate(times) if number != which]
    scale = 1.0
    for other in others:
        scale *= times[which] - other
    return polynomial.polyfromroots(others) / scale


def integral(coefficients: Any, start: float, end: float) -> float:
    """The integral of a polynomial (lowest power first) from *start* to *end*."""
    antiderivative = polynomial.polyint(coefficients)
    return float(polynomial.polyval(end, antiderivative) - polynomial.polyval(start, antiderivative))


def damped_integral(coefficients: Any, width: float, rate: float) -> float:
    """The integral of ``rate * exp(rate * time)`` times a polynomial (lowest power first), from *-width* to 0, by parts."""
    moments: list[float] = []
    kept = math.exp(-rate * width)
    for power in range(len(coefficients)):
        ends = (1.0 if power == 0 else 0.0) - (-width) ** power * kept
        moments.append(ends - (power / rate * moments[-1] if power else 0.0))
    return float(sum(weight * moment for weight, moment in zip(coefficients, moments)))
