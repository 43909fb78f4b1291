"""The composition root: from a scenario to the objects that carry it out.

The only package that knows all stages. Torch and Mesa are imported where they are needed, so that
a closed form costs neither.
"""

from fcfn_abm.build.check import NO_NOISE, check_scenario
from fcfn_abm.build.load import listed_scenarios, load_scenario, resolved, runs_of
from fcfn_abm.build.parts import (
    Floats,
    closed_form,
    dealt_data,
    honest,
    market,
    misreport,
    population,
    reference,
    rival,
)
from fcfn_abm.build.registries import REGISTRIES, create
from fcfn_abm.build.schema import scenario_schema

__all__ = [
    "NO_NOISE",
    "REGISTRIES",
    "Floats",
    "check_scenario",
    "closed_form",
    "create",
    "dealt_data",
    "honest",
    "listed_scenarios",
    "load_scenario",
    "market",
    "misreport",
    "population",
    "reference",
    "resolved",
    "rival",
    "runs_of",
    "scenario_schema",
]
