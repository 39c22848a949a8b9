import math

import pytest

from comfy.sampling.polynomials import damped_integral, integral, lagrange_polynomial


def value(coefficients, place):
    return sum(coefficient * place**power for power, coefficient in enumerate(coefficients))


def test_a_lagrange_polynomial_is_one_at_its_time_and_zero_at_the_others():
    times = [5.0, 3.5, 2.0, 1.2]
    for which in range(4):
        assert [value(lagrange_polynomial(times, which), time) for time in times] == pytest.approx(
            [float(number == which) for number in range(4)], abs=1e-9
        )


def test_integrals_of_a_parabola():
    assert integral([1.0, 2.0, 3.0], 1.0, 3.0) == pytest.approx(2 + 8 + 26)


@pytest.mark.parametrize("rate", [1.0, 2.0, 5.0])
def test_a_damped_integral_is_the_limit_of_its_sums(rate):
    coefficients, width, count = [1.0, -2.0, 0.5, 3.0], 0.7, 20_000
    places = [-width * (number + 0.5) / count for number in range(count)]
    sums = sum(rate * math.exp(rate * place) * value(coefficients, place) for place in places) * width / count
    assert damped_integral(coefficients, width, rate) == pytest.approx(sums, rel=1e-6)
