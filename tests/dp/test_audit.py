import numpy as np
import pytest
from numpy.testing import assert_allclose

from fcfn_abm.dp import gaussian_epsilon
from fcfn_abm.dp.audit import Canary, LowerBounds, StepView, audit, cache_gradients, lower_bounds
from fcfn_abm.errors import InvalidPrivacyError, RunFailedError


def gaussian_scores(mu, n, rng):
    return rng.normal(mu, 1.0, n), rng.normal(0.0, 1.0, n)


@pytest.mark.parametrize("mu", [0.3, 2.0, 8.0])
def test_bounds_exceed_the_truth_no_more_often_than_they_say(mu):
    rng, truth = np.random.default_rng(1), gaussian_epsilon(1 / mu, 1e-5)
    found = [lower_bounds(*gaussian_scores(mu, 200, rng), 1e-5, 0.7) for _ in range(250)]
    for name in ("any_mechanism", "gdp", "gaussian"):
        # each takes a tenth; more than 40 of 250 would happen once in a thousand
        assert sum(getattr(bounds, name) > truth for bounds in found) <= 40


@pytest.mark.parametrize("mu", [1.0, 2.0, 20.0])
def test_the_bounds_that_know_of_gaussian_noise_are_tight(mu):
    truth = gaussian_epsilon(1 / mu, 1e-5)
    scores = gaussian_scores(mu, 20_000, np.random.default_rng(2))
    bounds = lower_bounds(*scores, 1e-5, 0.999)
    assert 0.9 * truth < bounds.gaussian < truth
    assert 0.0 < bounds.any_mechanism < truth
    if mu <= 2:
        assert 0.75 * truth < bounds.gdp < truth


def test_randomised_response_is_seen_for_what_it_is():
    # tells the truth three times out of four: ln 3, by definition
    rng = np.random.default_rng(3)
    present, absent = (rng.random((2, 100_000)) < [[0.75], [0.25]]).astype(float)
    bound = lower_bounds(present, absent, 1e-9, 0.999).any_mechanism
    assert 0.95 * np.log(3) < bound < np.log(3)


def test_laplace_noise_is_never_charged_with_more_than_its_epsilon():
    rng = np.random.default_rng(4)
    present, absent = rng.laplace(1.0, 1.0, 50_000), rng.laplace(0.0, 1.0, 50_000)
    assert 0.9 < lower_bounds(present, absent, 1e-9, 0.999).any_mechanism < 1.0


def test_without_any_error_the_bound_is_that_of_so_many_trials():
    spread = np.random.default_rng(7).random(1000)
    bounds = lower_bounds(100 + spread, spread, 1e-5, 0.999)
    rate = 1 - (0.001 / 6) ** (1 / 667)  # two thirds count; a sixth of the risk for each error
    assert_allclose(bounds.any_mechanism, np.log((1 - 1e-5 - rate) / rate), rtol=1e-9)
    assert bounds.gaussian > bounds.gdp > bounds.any_mechanism


def test_scores_that_tell_nothing_prove_nothing():
    same = np.random.default_rng(5).normal(size=(2, 5000))
    assert lower_bounds(*same, 1e-5, 0.999).largest == 0.0
    assert lower_bounds(same[0] - 3, same[1], 1e-5, 0.999).gaussian == 0.0  # the wrong way round
    assert lower_bounds(np.ones(20), np.ones(20), 1e-5, 0.999).largest == 0.0


def test_of_noise_that_is_not_gaussian_only_the_first_bound_is_given():
    scores = gaussian_scores(3.0, 1000, np.random.default_rng(8))
    bounds = lower_bounds(*scores, 1e-5, 0.999)
    assert lower_bounds(*scores, 1e-5, 0.999, gaussian=False) == LowerBounds(
        bounds.any_mechanism, 0.0, 0.0
    )


def test_an_audit_runs_both_sides_alike_and_judges_the_claim():
    rng, sides = np.random.default_rng(6), []

    def attack(present):
        sides.append(present)
        return rng.normal(1.0 if present else 0.0)

    truth = gaussian_epsilon(1.0, 1e-5)
    honest = audit(attack, truth, 1e-5, trials=4001)
    assert honest.n_trials == len(sides) == 4000
    assert sum(sides) == 2000
    assert honest.verdict == "holds"
    assert audit(attack, truth / 2, 1e-5, trials=4000).verdict == "violated"


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"epsilon": 0.0}, "epsilon must be positive"),
        ({"delta": 1.0}, "delta must lie between 0 and 1"),
        ({"confidence": 1.0}, "confidence must lie between 0 and 1"),
        ({"trials": 10}, "trials must be at least 100, but is 10"),
        ({"trials": 10**17}, "trials must be at most 10,000,000, but is 100,000"),
    ],
)
def test_numbers_outside_their_range_are_refused(numbers, words):
    with pytest.raises(InvalidPrivacyError, match=words):
        audit(lambda _: 0.0, **{"epsilon": 1.0, "delta": 1e-5, **numbers})


def test_a_score_that_is_not_finite_is_refused():
    with pytest.raises(RunFailedError, match="not finite"):
        audit(lambda _: np.nan, 1.0, 1e-5, trials=100)


def test_a_canary_takes_the_place_of_one_record_or_of_all():
    torch = pytest.importorskip("torch")
    direction = torch.tensor([0.6, 0.8])
    canary = Canary(direction, 50.0, "replace-one", weight=1 / 3, alternate=True)
    gone = Canary(direction, 50.0, "zero-out")
    labels = torch.tensor([3, 1, 4])
    asked = []

    def real(_, __, labels):
        asked.append(labels.tolist())
        return torch.ones(len(labels), 2)

    def rows(canary, labels, seen):
        wrapped = canary.gradients(real, lambda rows: 0.5 * rows, seen)
        return wrapped(torch.tensor([5.0, 0.0]), None, labels)

    seen = []
    here = canary.plant(labels, whole=False, present=True)
    assert_allclose(rows(canary, here, seen), [[30, 40], [1, 1], [1, 1]])
    assert_allclose(rows(canary, here, seen)[0], [-30, -40])  # it turns round
    # two other records of three, halved by clipping, reach 0.6 + 0.8 along the direction
    assert_allclose(seen, [(3.0, 2 / 3 * 0.5 * 1.4, True)] * 2)
    assert asked == [[0, 1, 4]] * 2
    for made, pull in ((canary, -1), (gone, 0)):
        there = made.plant(labels, whole=True, present=False)
        assert_allclose(rows(made, there, []), pull * np.tile([30.0, 40.0], (3, 1)))
    assert len(asked) == 2  # no real record was left to ask
    assert labels.tolist() == [3, 1, 4]


def test_the_score_takes_momentum_and_the_other_records_out_again():
    canary = Canary(None, 1.0, "replace-one", alternate=True)
    velocity, position, seen = 0.0, 2.0, []
    for released, others in ((0.3, 0.1), (-1.2, 0.2), (0.7, -0.3)):
        seen.append(StepView(position, others))
        velocity = 0.9 * velocity + released + others
        position -= 0.1 * velocity
    assert_allclose(canary.score(seen, position, 0.1, 0.9), 0.3 + 1.2 + 0.7)


def test_cached_gradients_are_those_of_the_parameters_and_the_data_that_are_asked_for():
    torch = pytest.importorskip("torch")
    asked = []

    def real(flat, images, labels):
        asked.append(1)
        return flat.sum() + images + labels[:, None]

    at = torch.ones(2), torch.zeros(3, 2), torch.tensor([3, 1, 4])
    cached = cache_gradients(real, *at)
    assert torch.equal(cached(*at), real(*at))
    assert len(asked) == 2  # once for the cache, once here
    for changed in range(3):  # other parameters, as many other images, or other labels
        other = [value + (place == changed) for place, value in enumerate(at)]
        assert torch.equal(cached(*other), real(*other))
