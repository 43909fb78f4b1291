"""Random games for property tests."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

positive = st.floats(min_value=1e-3, max_value=1e3, allow_nan=False)
"""Numbers within six orders of magnitude."""

budgets = positive
alphas = positive
betas = positive


def costs(min_size: int = 2, max_size: int = 40) -> st.SearchStrategy[np.ndarray]:
    """Unit privacy costs of a population, with ties and near ties among them."""
    wild = hnp.arrays(float, st.integers(min_size, max_size), elements=positive)
    close = hnp.arrays(
        float, st.integers(min_size, max_size), elements=st.floats(0.9, 1.1, allow_nan=False)
    )
    tied = st.lists(
        st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0]), min_size=min_size, max_size=max_size
    ).map(np.array)
    return st.one_of(wild, close, tied)
