"""Audits of rounds of what trains: placements as they are pass closely, broken ones are caught."""

import json

import numpy as np
import pytest
from planted_faults import FAULTS, planted
from typer.testing import CliRunner

from fcfn_abm.build import load_scenario
from fcfn_abm.cli import app
from fcfn_abm.dp import gaussian_epsilon, gaussian_sigma
from fcfn_abm.errors import InvalidPrivacyError
from fcfn_abm.runs.audit import audit_scenario, audit_text
from fcfn_abm.training import PLACEMENTS

pytestmark = pytest.mark.slow

QUICKSTART = "privacy/quickstart-local"
SMALL = ["population.n_nodes=300", "privacy.delta=1e-5"]  # four or five samples a node


def scenario(
    placement="dp-sgd", n_steps=1, momentum=0.0, engine="serial", aggregation="uniform", **privacy
):
    unit = PLACEMENTS[placement].unit
    values = {"unit": unit, **privacy}
    return load_scenario(
        QUICKSTART,
        [
            *SMALL,
            f"privacy.placement.kind='{placement}'",
            f"training.local_epochs={n_steps}",
            f"training.momentum={momentum}",
            f"training.engine='{engine}'",
            f"training.aggregation.kind='{aggregation}'",
            *(f"privacy.{name}='{value}'" for name, value in values.items()),
        ],
    )


def test_every_placement_is_audited():
    assert {case[0] for case in HONEST} == set(PLACEMENTS)


HONEST = [  # placement, local steps, momentum, trials, and the share of the claim that they prove
    ("dp-sgd", 1, 0.0, 1000, 0.7),
    ("dp-sgd", 2, 0.9, 200, 0.2),
    ("update", 1, 0.0, 1000, 0.7),
    ("update", 3, 0.9, 1000, 0.7),
    ("paper", 1, 0.0, 1000, 0.7),
]
BOTH = [(*case, "serial") for case in HONEST] + [(*case, "stacked") for case in HONEST[:3]]


@pytest.mark.parametrize(("placement", "n_steps", "momentum", "trials", "share", "engine"), BOTH)
def test_a_placement_as_it_is_stays_below_its_claim_and_comes_close(
    placement, n_steps, momentum, trials, share, engine
):
    made = scenario(placement, n_steps, momentum, engine=engine)
    found = audit_scenario(made, [10.0], trials=trials)
    own, late, *of_sum = found.rows
    assert found.holds
    assert (own.view, own.epsilon, own.delta, own.n_trials) == ("local", 10.0, 1e-5, trials)
    assert (found.unit, found.engine) == (PLACEMENTS[placement].unit, engine)
    assert share * 10 < own.lower.gaussian < 10
    assert 0 <= own.lower.any_mechanism < found.ceiling.any_mechanism
    assert (late.view, late.lower) == ("late", own.lower)
    assert late.epsilon == pytest.approx(10.0, rel=1e-6)
    if n_steps == 1:
        assert found.reach == pytest.approx(1.0, abs=1e-3)  # no real record moves it further
        (central,) = of_sum
        # two others add as much noise: a third of the precision
        truth = gaussian_epsilon(gaussian_sigma(10.0, 1e-5) * np.sqrt(3), 1e-5)
        assert central.epsilon == pytest.approx(truth, rel=0.2)  # nodes are not all of one size
        assert 0.5 * central.epsilon < central.lower.gaussian < central.epsilon


@pytest.mark.parametrize("placement", ["dp-sgd", "update"])
def test_zero_out_halves_noise_and_distance_alike(placement):
    found = audit_scenario(scenario(placement, neighbours="zero-out"), [10.0], trials=1000)
    assert found.holds
    assert found.neighbours == "zero-out"
    assert found.reach == pytest.approx(1.0, abs=1e-3)
    assert 7 < found.rows[0].lower.gaussian < 10


def test_noise_of_the_sum_is_audited_as_it_is_drawn():
    found = audit_scenario(scenario(noise_of="sum"), [10.0], trials=1000)
    assert found.holds
    assert found.noise_of == "sum"
    assert [row.view for row in found.rows] == ["local", "late", "central"]
    assert found.rows[0].lower.gaussian > 7


def test_the_central_view_is_audited_where_it_is_what_is_sold():
    made = scenario("update", view="central", aggregation="by-epsilon")
    found = audit_scenario(made, [4.0], trials=400)
    assert found.holds
    assert [row.view for row in found.rows] == ["local", "central"]
    assert found.rows[1].epsilon == pytest.approx(4.0, rel=0.5)


CASES = {  # of each fault: how the scenario differs, how many trials, and which view is broken
    "half the noise": ({}, 400, "local"),
    "the second half of a release repeats the first": ({}, 200, "local"),
    "no noise on one layer": ({}, 200, "local"),
    "two coordinates share their noise": ({}, 200, "local"),
    "local steps share their noise": ({"n_steps": 2}, 100, "local"),
    "norms leave biases out": ({}, 1500, "local"),
    "biases escape the clip": ({}, 200, "local"),
    "updates of nodes are not clipped": ({"placement": "update"}, 200, "local"),
    "the sensitivity of another relation": ({}, 400, "local"),
    "late nodes' central multiplier times three": ({}, 400, "late"),
    "the noise of the sum weighs nodes twice": ({"noise_of": "sum"}, 400, "central"),
}


def test_each_fault_is_planted_here_or_in_whole_trainings():
    whole = {"noise that repeats after 64 rounds", "noise that repeats after 32 nodes"}
    assert set(CASES) | whole == set(FAULTS)


@pytest.mark.parametrize("fault", CASES)
def test_a_planted_fault_breaks_a_claim(fault):
    change, trials, view = CASES[fault]
    made = scenario(**change)
    with planted(fault):
        found = audit_scenario(made, [10.0], trials=trials)
    assert not found.holds
    broken = {row.view for row in found.rows if row.verdict == "broken"}
    assert view in broken
    if view != "local":
        assert broken == {view}
    assert "broken: lower bound above the claim" in audit_text(found).plain


def test_the_stacked_engine_is_audited_as_well():
    with planted("norms leave biases out"):
        assert not audit_scenario(scenario(engine="stacked"), [10.0], trials=1500).holds


def test_the_classical_formula_far_outside_its_range_is_caught():
    found = audit_scenario(scenario(calibration="classical"), [0.9, 98.0], trials=1000)
    assert [row.verdict for row in found.rows] == ["holds", "broken", "holds", "holds"]
    truth = gaussian_epsilon(gaussian_sigma(98.0, 1e-5, calibration="classical"), 1e-5)
    assert truth > 280
    assert 0.8 * truth < found.rows[1].lower.gaussian < truth
    assert found.rows[2].epsilon == pytest.approx(truth)  # the ledger charges what is true


@pytest.mark.parametrize(("n_steps", "trials"), [(1, 1200), (2, 200)])
def test_sampled_records_are_audited_without_assumptions_on_the_noise(n_steps, trials):
    made = scenario(n_steps=n_steps)
    placement = made.privacy.placement.model_copy(update={"sampling_rate": 0.3})
    privacy = made.privacy.model_copy(update={"placement": placement})
    found = audit_scenario(made.model_copy(update={"privacy": privacy}), [8.0], trials=trials)
    row = found.rows[0]
    assert found.sampling_rate == 0.3
    assert (row.lower.gdp, row.lower.gaussian) == (0.0, 0.0)
    assert (n_steps > 1) or row.lower.any_mechanism > 0.1
    assert row.lower.any_mechanism < 8
    assert "sampled" in audit_text(found)


def test_the_papers_placement_exceeds_its_claim_with_several_steps_and_says_why():
    found = audit_scenario(scenario("paper", n_steps=3), [4.0], trials=300)
    assert found.rows[0].verdict == "broken"
    assert "heuristic" in audit_text(found)
    # no record pulls further than the same way three times, and the noise is that of one step
    largest = gaussian_epsilon(gaussian_sigma(4.0, 1e-5) / 3, 1e-5)
    assert 4 < found.rows[0].lower.gaussian < largest


def test_an_audit_repeats_and_leaves_the_horizon_aside():
    rounds = audit_scenario(scenario(horizon="round"), [4.0], trials=200)
    total = audit_scenario(scenario(horizon="training"), [4.0], trials=200)
    assert rounds == total
    other = audit_scenario(scenario().model_copy(update={"seed": 8}), [4.0], trials=200)
    assert other.rows != rounds.rows


def fcfn(*args):
    sets = [arg for value in SMALL for arg in ("--set", value)]
    return CliRunner().invoke(app, ["audit", QUICKSTART, "--trials", "200", *sets, *args])


def test_the_command_prints_a_table_and_ends_with_0_when_claims_hold():
    done = fcfn("--epsilon", "4", "--epsilon", "10")
    assert done.exit_code == 0, done.output
    for words in (
        "Placement dp-sgd, engine serial",
        "one record (replace-one)",
        "Gaussian",
        "200 trials",
    ):
        assert words in done.stdout
    assert done.stdout.count("holds") == 4  # two claims, a late node, the sum
    assert "broken" not in done.stdout


def test_the_command_ends_with_1_when_a_claim_is_broken():
    done = fcfn("--epsilon", "98", "--set", "privacy.calibration='classical'", "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert found["holds"] is False
    row, late, _ = found["rows"]
    assert late["verdict"] == "holds"  # the ledger's own claim is the true epsilon
    assert row["verdict"] == "broken"
    assert row["lower"]["gaussian"] > 98


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--epsilon", "-1"], "epsilon must be between 1e-12 and 1e+12, not -1"),
        (["--epsilon", "inf"], "epsilon must be between 1e-12 and 1e+12, not inf"),
        (["--epsilon", "1e19"], "epsilon must be between 1e-12 and 1e+12, not 1e+19"),
        (["--trials", "7"], "trials must be at least 100, but is 7."),
        (["--canaries", "200"], "--canaries applies to whole trainings"),
        (["--whole"], "--trials applies to audits of a round"),
        (["--trials", f"{10**17}"], "trials must be at most 10,000,000, but is 100,000,000"),
        (["--confidence", "1"], "confidence must lie between 0 and 1"),
    ],
)
def test_the_command_refuses_numbers_outside_their_range(args, words):
    done = fcfn(*args)
    assert done.exit_code == 2
    assert words in done.stderr
    assert "Traceback" not in done.output
    assert np.all([line.startswith(("fcfn:", "audit:")) for line in done.stderr.split("\r")[-1:]])


def test_a_small_learning_rate_hides_no_fault():
    made = scenario(calibration="classical")
    training = made.training.model_copy(update={"learning_rate": 1e-9})
    found = audit_scenario(made.model_copy(update={"training": training}), [98.0], trials=500)
    assert found.rows[0].lower.gaussian > 200


def test_steps_that_parameters_cannot_show_are_refused():
    made = scenario(n_steps=2)
    training = made.training.model_copy(update={"learning_rate": 1e-9})
    with pytest.raises(InvalidPrivacyError, match="too small to audit several local steps"):
        audit_scenario(made.model_copy(update={"training": training}), [1.0], trials=200)
