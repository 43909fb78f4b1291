"""Audits of the real training: honest placements pass closely, broken ones are caught."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import fcfn_abm.dp.noise
from fcfn_abm.build import load_scenario
from fcfn_abm.cli import app
from fcfn_abm.dp import Clipping, gaussian_epsilon, gaussian_sigma
from fcfn_abm.errors import InvalidPrivacyError
from fcfn_abm.runs.audit import audit_scenario, audit_text
from fcfn_abm.training import PLACEMENTS

pytestmark = pytest.mark.slow

QUICKSTART = "privacy/quickstart-local"
SMALL = ["population.n_nodes=300", "privacy.delta=1e-5"]  # four or five samples a node


def scenario(placement="dp-sgd", n_steps=1, momentum=0.0, **privacy):
    unit = PLACEMENTS[placement].unit
    values = {"unit": unit, **privacy}
    return load_scenario(
        QUICKSTART,
        [
            *SMALL,
            f"privacy.placement.kind='{placement}'",
            f"training.local_epochs={n_steps}",
            f"training.momentum={momentum}",
            *(f"privacy.{name}='{value}'" for name, value in values.items()),
        ],
    )


def test_every_placement_is_audited():
    assert {case[0] for case in HONEST} == set(PLACEMENTS)


HONEST = [  # placement, local steps, momentum, trials, and the share of the claim that they prove
    ("dp-sgd", 1, 0.0, 4000, 0.7),
    ("dp-sgd", 3, 0.9, 1000, 0.5),
    ("update", 1, 0.0, 4000, 0.7),
    ("update", 3, 0.9, 4000, 0.7),
    ("paper", 1, 0.0, 4000, 0.7),
]


@pytest.mark.parametrize("neighbours", ["replace-one", "zero-out"])
@pytest.mark.parametrize(("placement", "n_steps", "momentum", "trials", "share"), HONEST)
def test_an_honest_placement_stays_below_its_claim_and_comes_close(
    placement, n_steps, momentum, trials, share, neighbours
):
    if n_steps > 1 and neighbours == "zero-out":
        pytest.skip("distance and noise are halved together, and several steps take their time")
    made = scenario(placement, n_steps, momentum, neighbours=neighbours)
    found = audit_scenario(made, [10.0], trials=trials)
    (row,) = found.rows
    assert found.holds
    assert row.verdict == "holds"
    assert (row.epsilon, row.delta, row.n_trials) == (10.0, 1e-5, trials)
    assert (found.unit, found.neighbours) == (PLACEMENTS[placement].unit, neighbours)
    assert share * 10 < row.lower.gdp < 10
    assert (share + 0.1) * 10 < row.lower.gaussian < 10
    assert 1 < row.lower.any_mechanism < found.ceiling.any_mechanism


draw = fcfn_abm.dp.noise.node_noise


def test_half_the_noise_is_caught(monkeypatch):
    monkeypatch.setattr(
        fcfn_abm.dp.noise, "node_noise", lambda size, std, *where: draw(size, std / 2, *where)
    )
    for placement in PLACEMENTS:
        (row,) = audit_scenario(scenario(placement), [4.0], trials=2000).rows
        assert row.verdict == "violated"
        assert row.lower.gdp > 4
        assert 4 < row.lower.gaussian < gaussian_epsilon(gaussian_sigma(4.0, 1e-5) / 2, 1e-5)


@pytest.mark.parametrize("placement", list(PLACEMENTS))
def test_clipping_that_is_off_is_caught_without_any_assumption(placement, monkeypatch):
    monkeypatch.setattr(Clipping, "factors", lambda _, norms: norms.new_ones(norms.shape).float())
    monkeypatch.setattr(Clipping, "factor", lambda *_: 1.0)
    found = audit_scenario(scenario(placement), [1.0, 4.0], trials=2000)
    assert not found.holds
    for row in found.rows:
        assert row.lower.any_mechanism > 4


def test_the_classical_formula_far_outside_its_range_is_caught():
    found = audit_scenario(scenario(calibration="classical"), [0.9, 98.0], trials=2000)
    assert [row.verdict for row in found.rows] == ["holds", "violated"]
    truth = gaussian_epsilon(gaussian_sigma(98.0, 1e-5, calibration="classical"), 1e-5)
    assert truth > 280
    assert 0.85 * truth < found.rows[1].lower.gaussian < truth


def test_noise_that_local_epochs_share_is_caught(monkeypatch):
    def shared(size, std, *where):
        return draw(size // 2, std, *where).repeat(2)

    assert audit_scenario(scenario(n_steps=2), [2.0], trials=400).holds
    monkeypatch.setattr(fcfn_abm.dp.noise, "node_noise", shared)
    (row,) = audit_scenario(scenario(n_steps=2), [2.0], trials=400).rows
    assert row.lower.any_mechanism > 2  # the canary turns round, and the noise cancels


def test_a_sensitivity_for_the_wrong_neighbours_is_caught(monkeypatch):
    sensitivity = Clipping.sensitivity
    monkeypatch.setattr(
        Clipping,
        "sensitivity",
        lambda self, unit, _, share=1.0: sensitivity(self, unit, "zero-out", share),
    )
    assert audit_scenario(scenario(neighbours="zero-out"), [4.0], trials=1000).holds
    assert not audit_scenario(scenario(neighbours="replace-one"), [4.0], trials=1000).holds


@pytest.mark.parametrize("n_steps", [1, 2])
def test_sampled_records_are_audited_without_assumptions_on_the_noise(n_steps):
    made = scenario(n_steps=n_steps)
    placement = made.privacy.placement.model_copy(update={"sampling_rate": 0.3})
    privacy = made.privacy.model_copy(update={"placement": placement})
    found = audit_scenario(made.model_copy(update={"privacy": privacy}), [8.0], trials=1000)
    (row,) = found.rows
    assert found.sampling_rate == 0.3
    assert (row.lower.gdp, row.lower.gaussian) == (0.0, 0.0)
    assert 0.1 < row.lower.any_mechanism < 8
    assert "sampled" in audit_text(found)


def test_the_papers_placement_exceeds_its_claim_with_several_steps_and_says_why():
    found = audit_scenario(scenario("paper", n_steps=3), [4.0], trials=300)
    assert not found.holds
    assert "heuristic" in audit_text(found)
    # the canary pulls the same way three times, and the noise is that of one step
    truth = gaussian_epsilon(gaussian_sigma(4.0, 1e-5) / 3, 1e-5)
    assert 0.7 * truth < found.rows[0].lower.gaussian < truth


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
    for words in ("Placement dp-sgd", "one record (replace-one)", "Gaussian", "200 trials"):
        assert words in done.stdout
    assert done.stdout.count("holds") == 2
    assert "violated" not in done.stdout


def test_the_command_ends_with_1_when_a_claim_is_violated():
    done = fcfn("--epsilon", "98", "--set", "privacy.calibration='classical'", "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert found["holds"] is False
    (row,) = found["rows"]
    assert row["verdict"] == "violated"
    assert row["lower"]["gaussian"] > 98


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--epsilon", "-1"], "epsilon must lie from 1e-12 to 1e+12, but is -1"),
        (["--epsilon", "inf"], "epsilon must lie from 1e-12 to 1e+12, but is inf"),
        (["--epsilon", "1e19"], "epsilon must lie from 1e-12 to 1e+12, but is 1e+19"),
        (["--trials", "7"], "trials must be at least 100, but is 7."),
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


@pytest.mark.parametrize(
    ("learning_rate", "clipping_norm"), [(1e-9, 1.0), (0.5, 1e30), (0.5, 1e-9)]
)
def test_no_scale_hides_a_fault(learning_rate, clipping_norm):
    made = scenario(calibration="classical")
    privacy = made.privacy.model_copy(update={"clipping_norm": clipping_norm})
    training = made.training.model_copy(update={"learning_rate": learning_rate})
    made = made.model_copy(update={"training": training, "privacy": privacy})
    found = audit_scenario(made, [98.0], trials=500)
    assert found.rows[0].lower.gaussian > 200


def test_steps_that_parameters_cannot_show_are_refused():
    made = scenario(n_steps=2)
    training = made.training.model_copy(update={"learning_rate": 1e-9})
    with pytest.raises(InvalidPrivacyError, match="too small to audit several local steps"):
        audit_scenario(made.model_copy(update={"training": training}), [1.0], trials=200)
