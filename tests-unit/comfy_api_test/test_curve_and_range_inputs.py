"""Curves and ranges that the page's editors send."""

import numpy as np
import pytest

from comfy_api.input import CurveInput, LinearCurve, MonotoneCubicCurve, RangeInput

POINTS = [(0.0, 0.0), (0.25, 0.6), (0.5, 0.6), (1.0, 1.0)]


@pytest.mark.parametrize("kind", [LinearCurve, MonotoneCubicCurve])
def test_curve_passes_through_its_points_and_is_flat_outside(kind):
    curve = kind(list(reversed(POINTS)))
    assert curve.points == POINTS
    assert [curve.interp(x) for x, _ in POINTS] == pytest.approx([y for _, y in POINTS])
    assert curve.interp(-1.0) == 0.0 and curve.interp(2.0) == 1.0


def test_monotone_curve_never_overshoots():
    values = MonotoneCubicCurve(POINTS).to_lut(513)
    assert values.dtype == np.float64 and len(values) == 513
    assert np.all(np.diff(values) >= -1e-12)
    inside = MonotoneCubicCurve(POINTS).interp_array(np.linspace(0.25, 0.5, 33))
    assert inside == pytest.approx(np.full(33, 0.6))


def test_monotone_curve_is_smooth_where_slopes_agree():
    curve = MonotoneCubicCurve([(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
    assert curve.to_lut(11) == pytest.approx(np.linspace(0, 1, 11))


def test_curves_with_few_or_equal_points():
    assert MonotoneCubicCurve([]).interp(0.3) == 0.0 and LinearCurve([(0.5, 0.7)]).interp(0.9) == 0.7
    assert np.all(np.isfinite(MonotoneCubicCurve([(0.5, 0.0), (0.5, 1.0), (1.0, 1.0)]).to_lut(9)))


def test_curve_from_what_the_page_sends(caplog):
    linear = CurveInput.from_raw({"points": [[0, 0], [1, 1]], "interpolation": "linear"})
    assert isinstance(linear, LinearCurve) and CurveInput.from_raw(linear) is linear
    assert isinstance(CurveInput.from_raw([[0, 0], [1, 1]]), MonotoneCubicCurve)
    assert isinstance(CurveInput.from_raw({"points": [], "interpolation": "wavy"}), MonotoneCubicCurve)
    assert "'wavy'" in caplog.text


def test_range_maps_its_ends_and_midpoint():
    lut = RangeInput(0.25, 0.75, midpoint=0.25).to_lut(101)
    assert lut[0] == lut[25] == 0.0 and lut[75] == lut[100] == 1.0
    assert lut[37] == pytest.approx(((0.37 - 0.25) / 0.5) ** 0.5)
    plain = np.linspace(0, 1, 5)
    assert RangeInput(0.0, 1.0).to_lut(5) == pytest.approx(plain) and RangeInput(0.0, 1.0, 0.5).to_lut(5) == pytest.approx(plain)


def test_range_without_width_is_a_step():
    assert list(RangeInput(0.5, 0.5).to_lut(5)) == [0.0, 0.0, 1.0, 1.0, 1.0]


def test_range_from_what_the_page_sends():
    made = RangeInput.from_raw({"min": 0.1, "midpoint": 0.4})
    assert (made.min_val, made.max_val, made.midpoint) == (0.1, 1.0, 0.4) and RangeInput.from_raw(made) is made
    with pytest.raises(TypeError, match="not list"):
        RangeInput.from_raw([0, 1])
