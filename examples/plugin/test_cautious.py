"""Equal nodes converge to the closed form."""

from pathlib import Path

import pytest

import fcfn_abm as fa

MARKET = Path(__file__).with_name("market.toml")


@pytest.mark.parametrize("margin", [0.0, 0.2, 0.4])
def test_equal_nodes_come_to_rest_at_the_closed_form(margin):
    market = fa.PrivacyMarket(fa.load_scenario(MARKET, [f"learning.margin={margin}"]))
    market.run_until()
    n, budget, keep = 20, 50.0, 1 - margin
    expected = n * keep**2 * budget * (n - 1) / (1 + keep * (n - 1)) ** 2
    assert market.total_epsilon == pytest.approx(expected)
