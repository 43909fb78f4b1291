import numpy as np
import pytest

from fcfn_abm.dp import Clipping, Sensitivity
from fcfn_abm.errors import InvalidPrivacyError


@pytest.mark.parametrize("norm", [-1.0, 0.0, np.nan, np.inf])
def test_a_clipping_norm_that_bounds_nothing_is_refused(norm):
    with pytest.raises(InvalidPrivacyError, match="clipping_norm must be positive and finite"):
        Clipping(norm)


@pytest.mark.parametrize("relation", ["replace_one", "add-or-remove", "", None, 1])
def test_a_relation_that_is_not_known_has_no_sensitivity(relation):
    # taken for "zero-out" it would halve the noise
    with pytest.raises(InvalidPrivacyError, match="must be 'replace-one' or 'zero-out'"):
        Clipping(1.0).sensitivity("record", relation)
    with pytest.raises(InvalidPrivacyError, match="must be 'replace-one' or 'zero-out'"):
        Sensitivity(1.0, "record", relation)


def test_a_unit_that_is_not_known_is_refused():
    with pytest.raises(InvalidPrivacyError, match="unit must be 'record' or 'client'"):
        Clipping(1.0).sensitivity("person", "zero-out")


@pytest.mark.parametrize("share", [0.0, -0.1, np.nan])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(InvalidPrivacyError, match="share must be positive"):
        Clipping(1.0).sensitivity("record", "zero-out", share)


@pytest.mark.parametrize("distance", [0.0, -1.0, np.nan, np.inf])
def test_a_sensitivity_that_protects_nobody_is_refused(distance):
    with pytest.raises(InvalidPrivacyError, match="l2_sensitivity must be positive"):
        Sensitivity(distance, "record", "zero-out")


def test_a_replaced_row_moves_a_sum_twice_as_far():
    one, other = (Clipping(3.0).sensitivity("record", r, 0.5) for r in ("zero-out", "replace-one"))
    assert (one.l2, other.l2) == (1.5, 3.0)
