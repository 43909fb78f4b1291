import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import fcfn_abm as fa

FOLDER = Path("examples/minimal_market").resolve()


@pytest.fixture
def minimal_market(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("agents", "model"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    from model import MinimalMarket

    return MinimalMarket


def test_plain_mesa_agents_find_the_closed_form(minimal_market):
    market = minimal_market(n_nodes=20, rng=1)
    market.run_for(80)
    rho = np.array(market.nodes.get("rho"))
    form = fa.nash_equilibrium(rho, 10.0)
    assert_allclose(market.nodes.get("epsilon"), form.epsilon, atol=1e-6 * form.epsilon.max())
    assert_allclose(market.nodes.get("utility"), form.utility, atol=1e-5)
    assert market.n_active == form.n_active
    frame = market.datacollector.get_model_vars_dataframe()
    assert len(frame) == 80
    assert frame["exploitability"].iloc[-1] < 1e-9


def test_the_page_is_well_formed():
    compile((FOLDER / "app.py").read_text(), "app.py", "exec")
