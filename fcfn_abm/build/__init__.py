"""The composition root: from a scenario to the objects that run it.

The only package that depends on all stages. Torch and Mesa are imported on demand, so that a closed
form loads neither.
"""

from fcfn_abm.build.bench import OWN, BenchCell, name_mechanisms, require_bench
from fcfn_abm.build.check import NO_NOISE, check_scenario, check_settings
from fcfn_abm.build.load import (
    list_bench,
    list_runs,
    list_scenarios,
    load_costs,
    load_scenario,
    resolve_defaults,
    write_costs_scenario,
)
from fcfn_abm.build.manipulation import ManipulationEffect, measure_manipulation
from fcfn_abm.build.parts import (
    Floats,
    create_mechanism,
    create_trainer,
    deal_images,
    describe_missing,
    draw_population,
    follows_data,
    list_groups,
    load_images,
    needs_holdings,
    needs_images,
    prepare_trainer,
    price_mechanism,
    price_populations,
    price_scenario,
    pricing_game,
    solve_equilibrium,
)
from fcfn_abm.build.registries import REGISTRIES, create
from fcfn_abm.build.schema import scenario_schema

__all__ = [
    "NO_NOISE",
    "OWN",
    "REGISTRIES",
    "BenchCell",
    "Floats",
    "ManipulationEffect",
    "check_scenario",
    "check_settings",
    "create",
    "create_mechanism",
    "create_trainer",
    "deal_images",
    "describe_missing",
    "draw_population",
    "follows_data",
    "list_bench",
    "list_groups",
    "list_runs",
    "list_scenarios",
    "load_costs",
    "load_images",
    "load_scenario",
    "measure_manipulation",
    "name_mechanisms",
    "needs_holdings",
    "needs_images",
    "prepare_trainer",
    "price_mechanism",
    "price_populations",
    "price_scenario",
    "pricing_game",
    "require_bench",
    "resolve_defaults",
    "scenario_schema",
    "solve_equilibrium",
    "write_costs_scenario",
]
