"""Audits of whole trainings: claims stand, nearly reached, and noise that comes back is seen."""

import json

import numpy as np
import pytest
from planted_faults import planted
from typer.testing import CliRunner

from fcfn_abm.build import load_scenario
from fcfn_abm.cli import app
from fcfn_abm.errors import InvalidPrivacyError
from fcfn_abm.runs.audit_whole import audit_whole, whole_text

pytestmark = pytest.mark.slow

QUICKSTART = "privacy/quickstart-local"


def scenario(rounds, *sets):
    return load_scenario(QUICKSTART, ["privacy.delta=1e-5", f"training.rounds={rounds}", *sets])


UPDATE = ("privacy.placement.kind=update", "privacy.unit=client")


@pytest.mark.parametrize(
    "sets",
    [
        (),
        UPDATE,
        ("privacy.neighbours=zero-out",),
    ],
)
def test_a_whole_training_stays_below_its_claim_and_comes_close(sets):
    found = audit_whole(scenario(12, *sets), 10.0, canaries=500)
    assert found.holds
    messages, rounds, nodes, losses = found.attackers
    assert messages.sees == rounds.sees == nodes.sees == "all messages"
    assert losses.sees == "the last net"
    assert 6.5 < found.strongest.lower.gaussian < 10
    assert found.strongest == messages
    assert 0.5 < messages.lower.any_mechanism < 5
    assert losses.lower.largest < 5
    assert 0 < found.clipping_norm <= 1
    assert "holds: the strongest attacker proves" in whole_text(found).plain


def test_the_serial_engine_is_attacked_as_well_with_several_steps():
    sets = ("training.engine=serial", "training.local_epochs=2", "training.momentum=0.5")
    found = audit_whole(scenario(4, *sets), 10.0, canaries=200, blackbox=False)
    assert (found.engine, found.n_blackbox) == ("serial", 0)
    assert 4 < found.strongest.lower.gaussian < 10


@pytest.mark.parametrize(
    ("fault", "rounds", "canaries", "seen_by"),
    [
        ("half the noise", 5, 300, "every message"),
        ("noise that repeats after 64 rounds", 72, 100, "rounds 64 apart"),
        ("noise that repeats after 32 nodes", 5, 128, "nodes 32 apart"),
    ],
)
def test_noise_that_comes_back_breaks_the_claim(fault, rounds, canaries, seen_by):
    made = scenario(rounds)
    assert audit_whole(made, 10.0, canaries=canaries, blackbox=False).holds
    with planted(fault):
        found = audit_whole(made, 10.0, canaries=canaries, blackbox=False)
    assert found.verdict == "broken"
    assert found.strongest.name == seen_by
    assert "broken: lower bound above the claim" in whole_text(found).plain


def test_what_cannot_be_attacked_for_a_whole_training_is_refused():
    with pytest.raises(InvalidPrivacyError, match='noise_of = "sum"'):
        audit_whole(scenario(5, "privacy.noise_of=sum"))
    with pytest.raises(InvalidPrivacyError, match="zero contribution"):
        audit_whole(scenario(5, *UPDATE, "privacy.neighbours=zero-out"))
    sampled = scenario(5)
    placement = sampled.privacy.placement.model_copy(update={"sampling_rate": 0.5})
    privacy = sampled.privacy.model_copy(update={"placement": placement})
    with pytest.raises(InvalidPrivacyError, match="records are sampled"):
        audit_whole(sampled.model_copy(update={"privacy": privacy}))
    for wrong in ({"canaries": 10}, {"canaries": 0}, {"confidence": 1.0}, {"epsilon": -1.0}):
        with pytest.raises(InvalidPrivacyError):
            audit_whole(scenario(5), **wrong)


def test_the_command_attacks_a_whole_training_with_its_total():
    done = CliRunner().invoke(
        app,
        [
            *("audit", QUICKSTART, "--whole", "--canaries", "100", "--json"),
            *("--set", "training.rounds=3", "--set", "population.n_nodes=10"),
        ],
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["rounds"], found["epsilon"], found["n_canaries"]) == (3, 10.0, 100)
    assert found["strongest"] == "every message"
    assert np.isfinite(found["attackers"][0]["lower"]["gaussian"])
