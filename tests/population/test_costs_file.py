"""Costs and names from CSV files: what is recognised, what is refused, and where names go."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fcfn_abm as fa
from fcfn_abm.errors import InvalidDataError, InvalidScenarioError
from fcfn_abm.population.costs_file import read_costs_file

COSTS = {"North": 0.1, "South": 0.2, "East": 0.15}


def write(folder, text, name="costs.csv", encoding="utf-8"):
    (folder / name).write_bytes(text.encode(encoding))
    return folder / name


def table_of(path):
    scenario = fa.load_costs(path)
    return dict(
        zip(
            scenario.population.node_names,
            scenario.population.rho.options["values"],
            strict=True,
        )
    )


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte-order-mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["unix", "windows"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize("quoted", [False, True])
def test_separators_decimal_marks_and_line_ends_are_recognised(
    tmp_path, mark, end, separator, decimal, quoted
):
    if separator == decimal and not quoted:
        pytest.skip("nobody can read such a file")
    quote = '"' if quoted else ""
    lines = [["name", "rho"], *([n, str(c).replace(".", decimal)] for n, c in COSTS.items())]
    text = end.join(separator.join(f"{quote}{e}{quote}" for e in line) for line in lines)
    assert table_of(write(tmp_path, mark + text + end)) == COSTS


@given(st.lists(st.floats(1e-18, 1e18), min_size=2, max_size=20), st.sampled_from(".,"))
def test_every_cost_is_read_exactly(tmp_path_factory, costs, decimal):
    lines = ["rho", *(repr(cost).replace(".", decimal) for cost in costs)]
    path = write(tmp_path_factory.mktemp("costs"), "\n".join(lines))
    assert fa.load_costs(path).population.rho.options["values"] == tuple(costs)


def test_one_column_needs_no_separator_and_may_have_decimal_commas(tmp_path):
    path = write(tmp_path, "rho\n0,1\n\n0,25\n")
    assert fa.load_costs(path).population.rho.options["values"] == (0.1, 0.25)
    assert fa.load_costs(path).population.node_names is None


def test_columns_can_be_named_and_scaled(tmp_path):
    write(tmp_path, "site,per unit,beds\nA,10,3\nB,25,4\n")
    (tmp_path / "market.toml").write_text(
        '[population.rho]\nkind = "csv"\npath = "costs.csv"\ncolumn = "per unit"\n'
        'name_column = "site"\nscale = 0.01\n'
    )
    people = fa.load_scenario(tmp_path / "market.toml").population
    assert (people.n_nodes, people.node_names) == (2, ("A", "B"))
    assert people.rho.options["values"] == (0.1, 0.25)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the file is empty; its first line must name the columns"),
        ("name,rho\n", "contains the costs of 0 nodes; a market needs at least two"),
        ("name,rho\nA,1\n", "contains the costs of 1 nodes"),
        ("A,0.1\nB,0.2\n", "line 1: contains '0.1', but must contain the column names"),
        ("name,\nA,0.1\nB,0.2\n", "line 1: has a column without a name"),
        ("rho,rho\n1,2\n3,4\n", "line 1: the column 'rho' appears twice"),
        ("name,rho\nA,1\nB\n", "line 3: has 1 entries, but line 1 has 2 columns"),
        ("name,rho\nA,1\n\nA,2\n", "line 4: the name 'A' is already used on line 2"),
        ("name,rho\nA,1\n,2\n", "line 3: 'name' is empty; every node needs a name"),
        ("name,rho\nA,1\nB,\n", "line 3: 'rho' is empty; every node needs a cost"),
        ("name,rho\nA,1\nB,0\n", "line 3: 'rho' must be positive, but is 0."),
        ("name,rho\nA,1\nB,-0.2\n", "line 3: 'rho' must be positive, but is -0.2"),
        ("name,rho\nA,1\nB,1e300\n", "line 3: 'rho' must lie from 1e-18 to 1e+18, but is 1e300"),
        ("name,rho\nA,1\nB,1e999\n", "line 3: 'rho' must be positive, but is 1e999"),
        ("name,rho\nA,1\nB,nan\n", "line 3: 'rho' must be a number"),
        ("name,rho\nA,1\nB,0x10\n", "line 3: 'rho' must be a number"),
        ("name,rho\nA,1\nB,1_0\n", "line 3: 'rho' must be a number"),
        ("name;rho\nA;1.234,5\nB;2\n", "line 2: 'rho' contains commas and points, here '1.234,5'"),
        ("name;rho\nA;1,5\nB;2.5\n", "line 3: 'rho' contains commas and points, here '2.5'"),
        ("name;rho\nA;1,234\nB;2\n", "line 2: 'rho' is 1,234, which may be 1.234 or 1234"),
        ('name,rho\n"A,1\nB,2\n', "line 3: invalid CSV: unexpected end of data"),
        ("name,x,y\nA,1,2\nB,3,4\n", "no column is called 'rho' or 'cost'"),
        ("name,rho\nA\x07,1\nB,2\n", "line 2: 'name' must have at most 100 printable characters"),
    ],
)
def test_what_is_wrong_gets_one_sentence_with_its_line(tmp_path, text, says):
    with pytest.raises(InvalidScenarioError) as caught:
        fa.load_costs(write(tmp_path, text))
    message = str(caught.value)
    assert says in message
    assert message.count("costs.csv") == 1
    assert "\n" not in message


def test_a_file_in_another_encoding_is_refused_with_its_line(tmp_path):
    with pytest.raises(InvalidScenarioError, match=r"line 2: not UTF-8 text; save the file as"):
        fa.load_costs(write(tmp_path, "name,rho\nHôpital,1\nB,2\n", encoding="cp1252"))


def test_a_comma_may_be_declared_a_decimal_mark(tmp_path):
    file = read_costs_file(write(tmp_path, "rho\n1,234\n2,5\n"))
    assert file.numbers("rho").tolist() == [1.234, 2.5]  # the second one shows what it is
    file = read_costs_file(write(tmp_path, "rho\n1,234\n2\n"))
    assert file.numbers("rho", decimal=",").tolist() == [1.234, 2.0]
    with pytest.raises(InvalidDataError, match="with the decimal mark ','"):
        read_costs_file(write(tmp_path, "rho\n1.5\n2\n")).numbers("rho", decimal=",")


def test_a_path_is_relative_to_the_file_that_names_it(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "other").mkdir()
    write(tmp_path / "data", "rho\n0.1\n0.2\n")
    (tmp_path / "data" / "base.toml").write_text('[population]\nrho = "csv:costs.csv"\n')
    (tmp_path / "other" / "mine.toml").write_text('extends = "../data/base.toml"\n')
    write(tmp_path / "other", "rho\n0.7\n0.8\n0.9\n", "three.csv")
    monkeypatch.chdir(tmp_path / "other")
    scenario = fa.load_scenario(tmp_path / "other" / "mine.toml")
    assert scenario.population.rho.options["values"] == (0.1, 0.2)
    typed = ["population.rho=csv:three.csv"]  # on a command line, relative to the current folder
    assert fa.load_scenario("../data/base.toml", typed).population.n_nodes == 3


def test_a_number_of_nodes_must_be_that_of_the_file(tmp_path):
    write(tmp_path, "rho\n0.1\n0.2\n")
    (tmp_path / "a.toml").write_text('[population]\nn_nodes = 3\nrho = "csv:costs.csv"\n')
    with pytest.raises(InvalidScenarioError, match=r"has 2 costs, but population.n_nodes = 3"):
        fa.load_scenario(tmp_path / "a.toml")


def test_groups_may_have_files_of_their_own(tmp_path):
    write(tmp_path, "name,rho\nA,0.1\nB,0.2\n")
    (tmp_path / "a.toml").write_text(
        '[[population.groups]]\nname = "hospitals"\nrho = "csv:costs.csv"\n'
        '[[population.groups]]\nname = "practices"\nn_nodes = 3\n'
    )
    people = fa.load_scenario(tmp_path / "a.toml").population
    assert (people.n_nodes, people.group_sizes) == (5, [2, 3])
    assert people.node_names == ("A", "B", None, None, None)
    record = fa.run_scenario(fa.load_scenario(tmp_path / "a.toml"))
    assert record.nodes["name"].tolist()[:2] == ["A", "B"]
    assert record.nodes["name"].isna().tolist() == [False, False, True, True, True]


def test_a_sweep_goes_through_files(tmp_path):
    for name, costs in (("low", (0.1, 0.2)), ("high", (0.3, 0.4))):
        write(tmp_path, "\n".join(map(str, ("rho", *costs))), f"{name}.csv")
    (tmp_path / "a.toml").write_text(
        '[population]\nrho = "csv:low.csv"\n[sweep.axes]\n'
        '"population.rho" = ["csv:low.csv", { kind = "csv", path = "high.csv" }]\n'
    )
    sweep = fa.run_sweep(fa.load_scenario(tmp_path / "a.toml"), tmp_path / "out").frame()
    assert (sweep["status"] == "done").all()
    (tmp_path / "a.toml").write_text(
        '[population]\nrho = "csv:low.csv"\n[sweep.axes]\n"population.rho.scale" = [1.0, 2.0]\n'
    )
    with pytest.raises(InvalidScenarioError, match="list whole tables as the values of"):
        fa.load_scenario(tmp_path / "a.toml")


@pytest.mark.parametrize("traces", ["sample", "all", "last:2"])
def test_names_stand_in_every_table_of_a_record_which_needs_the_file_no_more(tmp_path, traces):
    path = write(tmp_path, "name;rho\n" + "".join(f"{n};{c}\n" for n, c in COSTS.items()))
    settings = [f"record.traces={traces}", "rounds.maximum=4"]
    scenario = fa.load_costs(path, settings)
    fa.run_scenario(scenario, tmp_path / "record")
    path.unlink()
    record = fa.read_record(tmp_path / "record")
    assert dict(zip(record.nodes["name"], record.nodes["rho"], strict=True)) == COSTS
    named = record.traces.groupby("node")["name"].unique()
    assert [names.tolist() for names in named] == [[name] for name in COSTS]
    assert list(record.traces_of([1])["name"].unique()) == ["South"]
    again = fa.run_scenario(fa.load_scenario(tmp_path / "record" / "scenario.toml"))
    shown = ["name", "rho", "epsilon"]
    assert again.nodes[shown].to_dict("list") == record.nodes[shown].to_dict("list")


@pytest.mark.slow
def test_names_stand_in_the_ledger_and_in_the_plan_for_another_program(tmp_path):
    path = write(tmp_path, "name,rho\n" + "".join(f"{n},{c}\n" for n, c in COSTS.items()))
    (tmp_path / "a.toml").write_text(
        '[population]\nrho = "csv:costs.csv"\n[training]\nrounds = 2\ncompare = []\n'
    )
    record = fa.run_scenario(fa.load_scenario(path.with_name("a.toml")), tmp_path / "record")
    assert dict(zip(record.ledger["node"], record.ledger["name"], strict=True)) == {
        0: "North",
        1: "South",
        2: "East",
    }
    plan = json.loads(fa.export_plan(tmp_path / "record", format="json"))
    assert [node["name"] for node in plan["nodes"]] == list(COSTS)


def test_newcomers_have_no_names(tmp_path):
    path = write(tmp_path, "name,rho\nA,0.1\nB,0.2\n")
    with pytest.raises(InvalidScenarioError, match="newcomers have no names"):
        fa.load_costs(path, ["population.churn.departures=0.1"])
    assert fa.load_costs(path, ["population.churn.departures=0.1"], name_column="").population.churn


def test_weights_can_be_a_column_of_the_file(tmp_path):
    path = write(tmp_path, "name;rho;beds\nA;0,1;3\nB;0,2;1\nC;0,3;1\n")
    weighted = fa.load_costs(path, ["mechanism.kind=weighted", "mechanism.by=column:beds"])
    assert weighted.mechanism.options["weights"] == (3.0, 1.0, 1.0)
    assert weighted.mechanism.options["by"] == "listed"
    with pytest.raises(
        InvalidScenarioError, match=r"by: .* there is no column 'bed'. Did you mean"
    ):
        fa.load_costs(path, ["mechanism.kind=weighted", "mechanism.by=column:bed"])
    (tmp_path / "a.toml").write_text('[mechanism]\nkind = "weighted"\nby = "column:beds"\n')
    with pytest.raises(InvalidScenarioError, match="must be of the kind 'csv'"):
        fa.load_scenario(tmp_path / "a.toml")


def test_a_sweep_begun_with_another_file_is_not_resumed(tmp_path):
    path = write(tmp_path, "rho\n0.1\n0.2\n")
    (tmp_path / "a.toml").write_text(
        '[population]\nrho = "csv:costs.csv"\n[sweep]\nreplications = 2\n'
    )
    fa.run_sweep(fa.load_scenario(tmp_path / "a.toml"), tmp_path / "out")
    path.write_text("rho\n0.1\n0.3\n")
    with pytest.raises(fa.FcfnError, match=r"population.rho.source is .costs.csv, column 'rho'"):
        fa.run_sweep(fa.load_scenario(tmp_path / "a.toml"), tmp_path / "out")


def test_a_hundred_thousand_costs_take_seconds(tmp_path):
    costs = [0.1 + 1e-9 * n for n in range(100_000)]
    text = "".join(f"node {n},{cost!r}\n" for n, cost in enumerate(costs))
    scenario = fa.load_costs(write(tmp_path, "name,rho\n" + text))
    assert scenario.population.n_nodes == 100_000
