"""The ODD description is complete, and the model can be rebuilt from it."""

import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import fcfn_abm as fa
from fcfn_abm import build
from fcfn_abm.cli import app
from fcfn_abm.odd import describe_differences, describe_model, document
from fcfn_abm.scenario import read_scenario, shipped_files, tree_to_scenario

ELEMENTS = [  # Grimm et al. 2020, table 1
    "1. Purpose and patterns",
    "2. Entities, state variables, and scales",
    "3. Process overview and scheduling",
    "4. Design concepts",
    "5. Initialization",
    "6. Input data",
    "7. Submodels",
]
CONCEPTS = [
    "Basic principles", "Emergence", "Adaptation", "Objectives", "Learning", "Prediction",
    "Sensing", "Interaction", "Stochasticity", "Collectives", "Observation",
]  # fmt: skip
REFERENCE = Path("docs/reference/odd.md")
REFRESH = "to make it anew: fcfn odd --out docs/reference/odd.md --overwrite"


@pytest.fixture(scope="module")
def text():
    return describe_model()


def fcfn(*args):
    return CliRunner().invoke(app, ["odd", *args])


def headings(text, level):
    return re.findall(rf"^{'#' * level} (.+)$", text, re.MULTILINE)


def names_of_keys(schema):
    """Return every name that a schema allows as a key, wherever it stands."""
    if isinstance(schema, list):
        return set().union(*map(names_of_keys, schema))
    if not isinstance(schema, dict):
        return set()
    own = schema.get("properties", {})
    return set(own) | set().union(set(), *map(names_of_keys, schema.values()))


def test_the_seven_elements_and_the_eleven_concepts_stand_in_their_order(text):
    assert headings(text, 2)[:7] == ELEMENTS
    concepts = [h for h in headings(text, 3) if h.startswith("4.")]
    assert concepts == [f"4.{i} {name}" for i, name in enumerate(CONCEPTS, 1)]


def test_every_key_of_the_schema_stands_in_the_text_with_its_meaning(text):
    schema = build.scenario_schema()
    names = names_of_keys(schema) - {"kind"}
    assert len(names) > 150
    # the tables are headings, and all else has a row or a line
    tables = set(re.findall(r"\*\*`\[+([\w.]+)\]+`\*\*", text))
    missing = {
        name
        for name in names
        if f"| `{name}` |" not in text
        and f"- `{name}` (" not in text
        and not any(table.split(".")[-1] == name for table in tables)
    }
    assert missing <= set(build.REGISTRIES["mechanism",])  # keys of [compared]
    for table in schema["$defs"].values():
        assert " ".join(table.get("description", "").split()).replace("``", "`") in text


@pytest.mark.parametrize("place", list(build.REGISTRIES), ids=".".join)
def test_every_registered_name_stands_in_the_text_with_its_docstring(text, place):
    for name in build.REGISTRIES[place]:
        first = build.REGISTRIES[place][name].__doc__.strip().split("\n\n")[0]
        said = " ".join(first.split()).replace("``", "`")
        entry = re.search(
            rf"^\*\*`{name}`\*\*(?: \(used\))?: {re.escape(said)}$", text, re.MULTILINE
        )
        assert entry, name


def test_the_steps_of_a_round_are_those_that_a_market_takes(text, monkeypatch):
    taken = []
    names = re.findall(r"^\d+\. `(\w+)`", text, re.MULTILINE)
    market = fa.PrivacyMarket(fa.load_scenario("dynamics/cold-start"))
    for name in set(names) - {"play"}:
        step = getattr(market, name)

        def spy(*args, name=name, step=step, **kwargs):
            taken.append(name)
            return step(*args, **kwargs)

        monkeypatch.setattr(market, name, spy)
    market.open_round()
    market.close_round()
    without_nested = [n for n in taken if n != "limit_budget"]
    assert without_nested == [n for n in names if n not in ("play", "set_budget")]


def test_a_table_that_the_hand_written_parts_leave_out_stands_all_the_same(tmp_path, monkeypatch):
    template = document._TEMPLATE.read_text(encoding="utf-8")
    shorter = tmp_path / "odd.md"
    shorter.write_text(
        template.replace("{{ keys: exit }}", "").replace("{{ entries: server }}", "")
    )
    monkeypatch.setattr(document, "_TEMPLATE", shorter)
    text = describe_model()
    assert "**`[exit]`**: When nodes leave" in text
    assert "**`bandit`**: Narrow an interval" in text


def test_what_a_scenario_changes_stands_first_and_is_marked_in_its_place():
    text = describe_model(fa.load_scenario("paper/fig04"))
    assert headings(text, 2)[:2] == ["What differs from the default model", ELEMENTS[0]]
    first = text.split("## 1. ")[0]
    for row in (
        "| `population.n_nodes` | `50` | `100` |",
        '| `population.rho.kind` | `"lognormal"` | `"constant"` |',
        "| `game.alpha` | `10.0` | `1.0` |",
        '| `game.average_over` | `"active"` | `"population"` |',
    ):
        assert row in first
    assert "game.beta" not in first  # 10 is the default
    assert "| `alpha` | **`1.0`** (default: `10.0`) |" in text
    assert "| `beta` | `10.0` |" in text
    assert "**`constant`** (used): The same cost for all nodes." in text
    assert describe_model(fa.load_scenario("paper/fig04")) == text


def test_the_delta_has_the_changed_values_alone_in_the_elements_where_they_belong():
    text = describe_differences(fa.load_scenario("quickstart"))
    assert headings(text, 2) == [*ELEMENTS, "Simulation experiments"]
    parts = dict(zip(headings(text, 2), re.split(r"^## .+$", text, flags=re.M)[1:], strict=True))
    assert "No differences." in parts["1. Purpose and patterns"]
    assert "| `population.rho.factor` | none | `4.0` |" in parts["5. Initialization"]
    assert "**`outliers`**: A log-normal population" in parts["5. Initialization"]
    assert '| `privacy.view` | `"local"` | `"central"` |' in parts["7. Submodels"]
    assert "| `training.rounds` | none | `60` |" in parts["7. Submodels"]
    assert "| `seed` | `0` | `7` |" in parts["Simulation experiments"]
    assert "population.n_nodes" not in text
    assert "$" not in text  # nothing of the hand-written parts


def test_groups_and_events_stand_one_by_one():
    tree = {
        "population": {"groups": [{"name": "clinics", "share": 0.4}, {"name": "homes"}]},
        "events": [{"change": "rho", "round": 5, "scale": 2.0, "group": "homes"}],
    }
    scenario = build.resolve_defaults(tree_to_scenario(tree, "here"))
    delta = describe_differences(scenario)
    assert "| `population.groups.1.share` | none | `0.4` |" in delta
    assert "| `events.1.scale` | none | `2.0` |" in delta.split("## 6. Input data")[1]
    assert '- 2: `{ name = "homes" }`' in describe_model(scenario)


def test_a_million_costs_are_no_text():
    rho = {"kind": "listed", "values": [float(i) for i in range(1, 51)]}
    scenario = tree_to_scenario({"population": {"rho": rho}}, "here")
    text = describe_model(build.resolve_defaults(scenario))
    assert "8.0, ...] (50 values)" in text
    assert "41.0" not in text


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped_files())
def test_every_shipped_scenario_is_described(name):
    tree, where = read_scenario(Path(name))
    scenario = build.resolve_defaults(tree_to_scenario(tree, where))  # its runs are not listed
    assert headings(describe_differences(scenario), 2)[:7] == ELEMENTS
    text = describe_model(scenario)
    assert "{{" not in text
    assert headings(text, 2)[1:8] == ELEMENTS


def test_the_default_model_in_the_docs_is_current(text):
    assert REFERENCE.read_text(encoding="utf-8") == text, REFRESH


# From the text alone. What follows uses numbers that it reads there, and the equations of 7.1, 7.4
# and section 5 as they are written there; nothing of the package.


def read_values(text):
    """Return the values of the keys and options as the text has them, by their paths."""
    values = {}
    for row in re.findall(r"^\| `([\w.]+)` \| .+? \| `(.+?)` \|$", text.split("## 1. ")[0], re.M):
        values[row[0]] = row[1].strip('"')
    path = ""
    for line in text.splitlines():
        if table := re.match(r"\*\*`\[+([\w.]+)\]+`\*\*", line):
            path = table[1]
        elif row := re.match(r"\| `(\w+)` \| (?:\*\*)?`(.+?)`", line):
            values.setdefault(f"{path}.{row[1]}", row[2].strip('"'))
        elif used := re.match(r"Used: `(\S+)` with (.+)\.$", line):
            for option, value in re.findall(r"`(\w+) = (.+?)`", used[2]):
                values[f"{used[1]}.{option}"] = value.strip('"')
    return values


def test_fig_4_can_be_built_from_the_text_alone():
    values = read_values(describe_model(fa.load_scenario("paper/fig04")))
    n, rho = int(values["population.n_nodes"]), float(values["constant.value"])
    alpha, beta = float(values["game.alpha"]), float(values["game.beta"])
    assert values["game.average_over"] == "population"

    tau, n_g = n * rho, n  # equal costs: all take part
    kappa = (n - 1) / (n_g * tau)
    cap = max(0.0, beta - 1 / (alpha * kappa))
    best = cap * (n - 1) / tau * (1 - rho * (n - 1) / tau)
    others = (n - 1) * best
    assert cap == pytest.approx(980 / 99)  # the three numbers that the paper prints
    assert best == pytest.approx(98)
    zero = cap / rho - others
    assert zero == pytest.approx(19502 / 99)

    own = np.linspace(0.0, zero, 198)
    curve = cap * own / (own + others) - rho * own

    from fcfn_zhou2023.utility import compute_client

    program = compute_client({"alpha-1": fa.load_scenario("paper/fig04")}, None)
    line = program[(program["panel"] == "") & (program["quantity"] == "node_utility")]
    assert len(line) >= 198
    assert np.interp(own, line["x"], line["value"]) == pytest.approx(curve, abs=1e-12)
    assert own[curve.argmax()] == pytest.approx(98, abs=0.5)


def test_a_market_can_be_built_from_the_text_alone(tmp_path):
    file = tmp_path / "market.toml"
    file.write_text("""
[population]
n_nodes = 5
rho = { kind = "listed", values = [1.0, 1.2, 1.5, 2.0, 9.0] }
[game]
budget = 4.0
[server]
kind = "fixed"
[rounds]
turns = "fixed"
start = "cold"
[exit]
patience = 2
""")
    scenario = fa.load_scenario(file)
    values = read_values(describe_model(scenario))
    rho = [float(v) for v in values["listed.values"].strip("[]").split(",")]
    cap, gain = float(values["game.budget"]), float(values["best-response.gain"])
    patience = int(values["exit.patience"])
    floor = float(values["game.epsilon_floor"])

    epsilon, caution, idle = [floor] * len(rho), [1.0] * len(rho), [0] * len(rho)
    left = [False] * len(rho)
    played = []
    for _ in range(40):
        epsilon = [0.0 if gone else e for e, gone in zip(epsilon, left, strict=True)]
        for i in range(len(rho)):
            others = sum(epsilon) - epsilon[i]
            reply = max(0.0, math.sqrt(cap * others / rho[i]) - others)
            if left[i] and reply <= 0:
                continue
            left[i] = False
            idle[i] = 0 if reply > 0 else idle[i] + 1
            pull = rho[i] * others / cap
            now = 2 * math.sqrt(pull) if 0 < pull < 1 / 4 else 1.0
            caution[i] = min(now, 1.5 * caution[i])
            epsilon[i] += gain * caution[i] * (reply - epsilon[i])
        total = sum(epsilon)
        utility = [cap * e / total - r * e for e, r in zip(epsilon, rho, strict=True)]
        played.append((total, sum(utility), sum(left)))
        left = [gone or n >= patience for gone, n in zip(left, idle, strict=True)]

    rounds = fa.run_scenario(scenario).rounds.head(40)
    totals, utilities, n_left = map(list, zip(*played, strict=True))
    assert totals[: len(rounds)] == pytest.approx(rounds["total_epsilon"], rel=1e-9)
    assert utilities[: len(rounds)] == pytest.approx(rounds["node_utility"], rel=1e-9)
    assert n_left[: len(rounds)] == list(rounds["n_exited"])
    assert n_left[-1] == 2  # tau / (n - 1) = 1.85 for the three that stay


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["no-such"], "no-such"),
        (["--delta"], "--delta: needs a scenario"),
        (["paper/fig04", "--out", "."], "is a folder"),
    ],
)
def test_bad_input_gets_one_sentence(args, said):
    done = fcfn(*args)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_text_goes_to_stdout_or_to_a_file_that_is_replaced_on_request(tmp_path, text):
    assert fcfn().stdout == text
    out = tmp_path / "odd.md"
    assert fcfn("--out", str(out)).stdout.strip() == str(out)
    assert out.read_text(encoding="utf-8") == text
    done = fcfn("paper/fig04", "--delta", "--out", str(out))
    assert done.exit_code == 2
    assert "--overwrite" in done.stderr
    assert fcfn("paper/fig04", "--delta", "--out", str(out), "--overwrite").exit_code == 0
    assert "delta-ODD" in out.read_text(encoding="utf-8")


def test_without_docstrings_there_is_an_error_that_names_the_reason():
    done = subprocess.run(
        [sys.executable, "-OO", "-m", "fcfn_abm", "odd"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "python -OO drops" in done.stderr
