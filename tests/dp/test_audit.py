import numpy as np
import pytest
from numpy.testing import assert_allclose

from fcfn_abm.dp import gaussian_epsilon
from fcfn_abm.dp.audit import (
    Audit,
    LowerBounds,
    Seen,
    audit,
    bounds_of_attackers,
    choose_directions,
    find_lag,
    lower_bounds,
    one_run_epsilon,
)
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


def one_number(rng, sides=None):
    def attack(present):
        if sides is not None:
            sides.append(present)
        return Seen(np.array([rng.normal(0.5 if present else -0.5)]), np.ones(1))

    return attack


def test_an_audit_runs_both_sides_alike_and_judges_the_claim():
    sides = []
    attack = one_number(np.random.default_rng(6), sides)
    truth = gaussian_epsilon(1.0, 1e-5)
    honest = audit(attack, truth, 1e-5, trials=4001)
    assert honest.n_trials == 4000
    assert sum(sides[-4000:]) == 2000
    assert honest.verdict == "holds"
    assert 0.75 * truth < honest.lower.gaussian < truth
    assert audit(attack, truth / 2, 1e-5, trials=4000).verdict == "broken"


SIZE = 60


def vectors(rng, spoil=lambda noise: noise, mu=1.0):
    """An attack on noise of one spread, which a fault may spoil; the truth is that of mu."""
    difference = rng.normal(size=SIZE)
    difference *= mu / np.linalg.norm(difference)

    def attack(present):
        noise = spoil(rng.normal(size=SIZE))
        return Seen(noise + difference * (0.5 if present else -0.5), difference)

    return attack


def repeat_half(noise):
    noise[SIZE // 2 :] = noise[: SIZE // 2]
    return noise


def repeat_every_seven(noise):
    noise[7:] = noise[:-7]
    noise[14:] = np.resize(noise[:7], SIZE - 14)
    return noise


def oppose_within_a_layer(noise):
    noise[30:40] = -noise[20:30]
    return noise


def silence_one(noise):
    noise[11] = 0
    return noise


def share_two(noise):
    noise[41] = noise[5]
    return noise


@pytest.mark.parametrize(
    ("spoil", "seen_by"),
    [
        (repeat_half, "second half less first half"),
        (repeat_every_seven, "numbers"),
        (oppose_within_a_layer, None),
        (silence_one, None),
        (share_two, "two coordinates"),
    ],
)
def test_structure_in_the_noise_breaks_the_claim_of_independent_noise(spoil, seen_by):
    truth = gaussian_epsilon(1.0, 1e-5)
    blocks = [np.arange(20), np.arange(20, 40), np.arange(40, 60)]
    honest = audit(vectors(np.random.default_rng(9)), truth, 1e-5, blocks=blocks, trials=1000)
    assert honest.verdict == "holds"
    spoilt = vectors(np.random.default_rng(9), spoil)
    found = audit(spoilt, truth, 1e-5, blocks=blocks, trials=1000)
    assert found.verdict == "broken"
    assert found.lower.gaussian > 100
    if seen_by:
        assert found.attacker.startswith(seen_by)


def test_noise_that_comes_back_is_found_at_its_distance_and_with_its_sign():
    rows = np.random.default_rng(10).normal(size=(5, 300))
    rows[:, 37:] -= 0.6 * rows[:, :-37]
    assert find_lag(rows) == (37, -1.0)


def test_directions_are_chosen_without_looking_at_what_they_are_scored_on():
    rng = np.random.default_rng(11)
    difference = rng.normal(size=SIZE)
    noise = rng.normal(size=(50, SIZE)).astype(np.float32)
    directions = choose_directions(noise, difference, [np.arange(10), np.arange(10, SIZE)])
    names = [direction.name for direction in directions]
    assert len(set(names)) == len(names) == 9
    assert_allclose(directions[0].weigh(difference), difference)
    for direction in directions:  # each is along a part of what the data sets differ in
        assert direction.weigh(difference) @ difference > 0
        assert not direction.weigh(np.zeros(SIZE)).any()


def test_many_attackers_together_are_wrong_no_more_often_than_they_say():
    rng, truth, wrong = np.random.default_rng(12), gaussian_epsilon(0.5, 1e-5), 0
    for _ in range(200):
        scores = [gaussian_scores(2.0, 150, rng) for _ in range(6)]
        wrong += bounds_of_attackers("abcdef", scores, 1e-5, 0.8)[1].largest > truth
    assert wrong <= 66  # more than 40 are expected at most; 66 would happen once in a million


def test_guesses_of_coins_never_prove_more_than_randomised_response_has():
    # a coin is reported as it is with probability e^eps / (1 + e^eps): eps-DP, and tight
    rng, epsilon = np.random.default_rng(13), 2.0
    rate = np.exp(epsilon) / (1 + np.exp(epsilon))
    bounds = []
    for _ in range(60):
        coins = rng.random(3000) < 0.5
        reported = np.where(rng.random(3000) < rate, coins, ~coins)
        bounds.append(one_run_epsilon(reported + rng.random(3000) / 2, coins, 1e-9, 0.05))
    assert sum(bound > epsilon for bound in bounds) <= 10
    assert np.median(bounds) > 0.85 * epsilon


def test_right_guesses_prove_what_the_binomial_distribution_implies():
    # all of 100 right: (e^eps / (1 + e^eps))^100 = risk, at a delta that plays no part
    coins = np.arange(100) % 2 == 0
    found = one_run_epsilon(coins.astype(float), coins, 1e-30, 0.08)
    rate = (0.08 / 7) ** (1 / 100)  # 100 >> 7 is 0: seven sizes, each with its part
    assert_allclose(found, np.log(rate / (1 - rate)), rtol=1e-6)
    assert one_run_epsilon(-coins.astype(float), coins, 1e-5, 0.05) == 0.0


@pytest.mark.parametrize("view", ["locall", "", None, 3])
def test_a_view_that_is_unknown_is_refused(view):
    with pytest.raises(InvalidPrivacyError, match="view must be 'local' or 'central' or 'late'"):
        audit(one_number(np.random.default_rng(1)), 1.0, 1e-5, view=view)
    with pytest.raises(InvalidPrivacyError, match="view must be"):
        Audit(view, 1.0, 1e-5, LowerBounds(0.0, 0.0, 0.0), "usual", 100, 0.999)


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
        audit(one_number(np.random.default_rng(1)), **{"epsilon": 1.0, "delta": 1e-5, **numbers})


def test_a_release_that_is_not_finite_is_refused():
    with pytest.raises(RunFailedError, match="not finite"):
        audit(lambda _: Seen(np.array([np.nan]), np.ones(1)), 1.0, 1e-5, trials=100)
