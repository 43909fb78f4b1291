import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fcfn_abm.game.exact import exact_sum, two_product, two_sum

moderate = st.floats(-1e100, 1e100).filter(lambda x: x == 0 or abs(x) > 1e-100)


@given(a=moderate, b=moderate)
def test_a_sum_and_its_rounding_error_are_the_exact_sum(a, b):
    total, error = two_sum(a, b)
    assert total == a + b
    assert Fraction(total) + Fraction(error) == Fraction(a) + Fraction(b)


@given(a=moderate, b=moderate)
def test_a_product_and_its_rounding_error_are_the_exact_product(a, b):
    product, error = two_product(np.array(a), np.array(b))
    assert product == a * b
    assert Fraction(float(product)) + Fraction(float(error)) == Fraction(a) * Fraction(b)


def test_products_broadcast():
    product, error = two_product(np.array(3.0), np.array([0.1, 0.2, 1.0]))
    rounded_off = [Fraction(x) * 3 - Fraction(x * 3) for x in (0.1, 0.2, 1.0)]
    assert product.tolist() == [0.1 * 3, 0.2 * 3, 3.0]
    assert error.tolist() == [float(x) for x in rounded_off]
    assert error[0] != 0


@given(
    values=hnp.arrays(float, st.integers(1, 300), elements=st.floats(1.0, 2.0)),
    power=st.integers(-200, 200),
)
def test_sums_of_numbers_within_a_factor_of_two_are_exact(values, power):
    values = np.ldexp(values, power)
    total, error = exact_sum(values)
    assert Fraction(total) + Fraction(error) == sum(map(Fraction, values.tolist()))
    assert total == math.fsum(values)


@given(values=hnp.arrays(float, st.integers(1, 100), elements=st.floats(-1e6, 1e6, width=32)))
def test_sums_of_any_numbers_keep_twice_the_digits(values):
    total, error = exact_sum(values)
    lost = Fraction(total) + Fraction(error) - sum(map(Fraction, values.tolist()))
    assert abs(lost) <= Fraction(2) ** -98 * sum(abs(Fraction(v)) for v in values.tolist())


@pytest.mark.parametrize("n", [1, 2, 3, 1000, 4097])
def test_what_cancels_does_not_take_the_rest_with_it(n):
    values = np.r_[np.full(n, 1e16), np.full(n, -1e16), 0.5]
    assert exact_sum(values) == (0.5, 0.0)
    assert values[0] + 0.5 == values[0]  # a plain sum from the left would lose it
