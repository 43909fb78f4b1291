"""Reports: read as a browser reads them, and held against the records that they are about."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats

import fcfn_abm as fa
from fcfn_abm.errors import InvalidRecordError, OutputError, UnknownNameError
from fcfn_abm.report.blocks import (
    Code,
    Fact,
    Facts,
    Notice,
    Page,
    Picture,
    Section,
    Table,
    Terms,
    Words,
)
from fcfn_abm.report.render import render_html, render_markdown
from fcfn_abm.report.settings import settings_table
from fcfn_abm.report.summary import equilibrium_table
from fcfn_abm.report.sweep_page import sweep_page
from fcfn_abm.runs.report import read_page
from fcfn_abm.scenario import shipped_files

pytestmark = pytest.mark.slow

HOSTILE = """<script>alert("x")</script>'"><img src=x onerror=alert(1)>&amp;|`$a$`*_"""
EMPTY_TAGS = {"meta", "br", "hr", "img", "link"}


class Reader(HTMLParser):
    """Follows tags, ids, references and text, and complains where they do not match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.references, self.tags, self.labels = [], [], [], [], []
        self.text = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        if "id" in attrs:
            self.ids.append(attrs["id"])
        for name in ("href", "xlink:href", "src"):
            if name in attrs:
                self.references.append(attrs[name])
        for value in attrs.values():
            self.references += re.findall(r"url\(([^)]*)\)", value or "")
        if attrs.get("role") == "img":
            self.labels.append(attrs["aria-label"])
        assert not any(name.startswith("on") for name in attrs), attrs
        if tag not in EMPTY_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in EMPTY_TAGS:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def checked(text):
    """Return what a browser sees, if the page is whole and asks nothing of the network."""
    seen = Reader(text)
    assert len(seen.ids) == len(set(seen.ids))
    for reference in seen.references:
        inside = reference.startswith("#") and reference[1:] in seen.ids
        embedded = reference.startswith(("data:image/png;base64,", "data:text/csv;charset=utf-8,"))
        assert inside or embedded, reference
    assert "@import" not in text
    assert "script" not in seen.tags
    assert all(seen.labels)
    assert len(seen.labels) == seen.tags.count("svg")
    return seen


def figure(title="drawn"):
    drawn = Figure()
    axes = drawn.subplots()
    axes.plot([0, 1], [0, 1], clip_on=True, marker="o", label=title.replace("$", r"\$"))
    axes.set_title(title.replace("$", r"\$"))
    axes.legend()
    return drawn


def page_of(text):
    blocks = [
        Words(text),
        Notice(text, text, "good"),
        Facts([Fact(text, text, text)]),
        Terms({text: text}),
        Table([text, text, ""], [[text, text, text]], text, text),
        Picture("one", figure(text), text, text),
        Picture("two", figure(text), text, text),
        Code(text, summary=text),
    ]
    return Page(text, text, blocks[:1], [Section(text, blocks)])


def test_hostile_text_is_shown_as_text():
    seen = checked(render_html(page_of(HOSTILE)))
    assert "img" not in seen.tags
    assert seen.words.count('<script>alert("x")</script>') > 10


def test_figures_of_a_page_share_no_names():
    seen = checked(render_html(page_of("plain")))
    assert seen.tags.count("svg") == 2
    assert any(name.startswith("f1-") for name in seen.ids)
    assert any(name.startswith("f2-") for name in seen.ids)


def test_markdown_reads_hostile_text_as_text():
    text = render_markdown(page_of(HOSTILE), lambda name: f"figures/{name}.svg", str)
    shown = re.sub(r"```+.*?```+", "", text, flags=re.DOTALL)
    assert not re.search(r"(?<!\\)<", shown)
    rows = [line for line in text.splitlines() if line.startswith(r"| \<script")]
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [4, 4]  # three cells
    assert "](figures/one.svg)" in text


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    """A market that some nodes leave."""
    out = tmp_path_factory.mktemp("market") / "run"
    scenario = fa.load_scenario("scenarios/quickstart.toml", ["training.enabled=false"])
    return fa.run_scenario(scenario.model_copy(update={"title": HOSTILE}), out)


@pytest.fixture(scope="module")
def written(market):
    """Its report, written by the command in a process of its own; and what that has loaded."""
    code = (
        f"import sys; sys.argv = ['fcfn', 'report', {str(market.path)!r}]\n"
        "from fcfn_abm.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    path, loaded = done.stdout.splitlines()
    assert path == str(market.path / "report.html")
    return (market.path / "report.html").read_text(), set(loaded.split())


@pytest.fixture(scope="module")
def page(market):
    return read_page(market.path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two rounds of training."""
    out = tmp_path_factory.mktemp("trained") / "run"
    short = ["population.n_nodes=12", "training.rounds=2", "training.compare=['random']"]
    return fa.run_scenario(fa.load_scenario("scenarios/quickstart.toml", short), out)


def tables(page):
    return {
        block.title or block.head[0]: block
        for section in page.sections
        for block in section.blocks
        if isinstance(block, Table)
    }


def test_the_report_of_a_run_says_what_the_record_holds(market, written):
    seen = checked(written[0])
    nodes, run = market.nodes, market.run
    assert "Converged after" in seen.words
    assert f"{nodes['active'].sum()} of {len(nodes)} nodes sell privacy" in seen.words
    assert f"{run['equilibrium']['threshold']:.6g}" in seen.words
    for name, version in run["versions"].items():
        assert f"{name} {version}" in seen.words
    assert "fcfn run scenario.toml" in seen.words
    assert HOSTILE.split("*")[0] in seen.words.replace("\u2212", "-")


def test_nodes_are_counted_by_what_became_of_them(market, page):
    nodes, threshold = market.nodes, market.run["equilibrium"]["threshold"]
    found = tables(page)
    groups = {row[0]: row for row in found["Nodes by final state"].rows}
    assert sum(int(row[1]) for row in groups.values()) == len(nodes)
    out = nodes[nodes["rho"] >= threshold]
    stays_out = groups["stays out: rho is tau/(n-1) or more"]
    assert int(stays_out[1]) == len(out)
    first, last = out["exit_round"].min(), out["exit_round"].max()
    assert stays_out[3] == f"{first} to {last}"


def test_the_nodes_beside_the_threshold_are_listed_in_order(market, page):
    threshold = market.run["equilibrium"]["threshold"]
    rows = tables(page)["Active nodes with the highest costs, and other nodes with the lowest"].rows
    beyond = [float(row[3]) for row in rows]
    assert beyond == sorted(beyond)
    ranked = market.nodes.set_index("node")["rho"].sort_values()
    listed = [int(row[0].removeprefix("node ")) for row in rows]
    assert listed == list(ranked.index[ranked.index.get_loc(listed[0]) :][: len(rows)])
    for node, share in zip(listed, beyond, strict=True):
        assert share == pytest.approx(ranked[node] / threshold - 1, rel=5e-3)


def test_a_report_of_training_shows_both_views_of_privacy(trained):
    seen = checked(fa.write_report(trained.path).read_text())
    assert "epsilon, one round, for an observer of a node's messages" in seen.words
    assert "epsilon, total of 2 rounds, for an observer of a node's messages" in seen.words
    assert "research output, not a release mechanism" in seen.words
    for arm in trained.run["training"]["arms"]:
        assert f"{arm['accuracy']:.1%}" in seen.words
    assert seen.tags.count("svg") == 6


def test_markdown_names_figures_that_are_there(market, tmp_path):
    file = fa.write_report(market.path, tmp_path / "short report.md", "md")
    assert "> **Converged after" in file.read_text()
    assert "rounds.** " in file.read_text()
    names = re.findall(r"\]\(([^)]*\.svg)\)", file.read_text())
    assert len(names) == 4
    for name in names:
        assert (tmp_path / name.replace("%20", " ")).read_text().startswith("<?xml")


def test_equal_records_give_equal_reports_and_no_other_file_is_replaced(market, written, tmp_path):
    other = tmp_path / "precious.html"
    other.write_text("precious")
    with pytest.raises(OutputError, match="already exists"):
        fa.write_report(market.path, other)
    assert other.read_text() == "precious"
    fa.write_report(market.path, other, overwrite=True)
    assert other.read_text() == written[0]
    fa.read_record(market.path)  # is still whole


def test_what_is_no_record_gets_a_sentence(tmp_path, market):
    with pytest.raises(InvalidRecordError, match="does not exist"):
        fa.write_report(tmp_path / "nowhere")
    with pytest.raises(InvalidRecordError, match="contains no results"):
        fa.write_report(tmp_path)
    with pytest.raises(UnknownNameError, match="form of a report called 'pdf'"):
        fa.write_report(market.path, form="pdf")
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(InvalidRecordError, match=r"run\.json: cannot be read"):
        fa.write_report(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"kind": "poem"}))
    with pytest.raises(InvalidRecordError, match="is a poem, for which there is no report"):
        fa.write_report(tmp_path)


def test_a_market_that_fails_says_so_first(tmp_path):
    scenario = fa.load_scenario(
        "scenarios/dynamics/simultaneous-undamped.toml", ["rounds.maximum=60"]
    )
    fa.run_scenario(scenario, tmp_path / "run")
    page = read_page(tmp_path / "run")
    assert page.lead[0].tone == "bad"
    assert page.lead[0].word == "Cycling after 60 rounds"


def test_no_trade_is_a_report_too(tmp_path):
    scenario = fa.load_scenario(
        "scenarios/dynamics/server-anticipate.toml", ["game.alpha=1e-6", "rounds.maximum=400"]
    )
    record = fa.run_scenario(scenario, tmp_path / "run")
    assert record.run["market"]["n_active"] == 0
    seen = checked(fa.write_report(record.path).read_text())
    assert "No-trade after" in seen.words
    assert f"None of the {len(record.nodes)} nodes sells privacy" in seen.words


def test_a_comparison_is_reported_with_its_intervals(tmp_path):
    scenario = fa.load_scenario("scenarios/quickstart.toml")
    found = fa.compare_mechanisms(scenario, ["stackelberg", "random"], 4, tmp_path / "comparison")
    seen = checked(fa.write_report(found.path).read_text())
    of = found.frame[found.frame["mechanism"] == "random"]["server_utility"]
    half = stats.t.ppf(0.975, 3) * of.std(ddof=1) / 2
    (cell,) = (
        row[2]
        for row in tables(read_page(found.path))["Utilities, in currency per round"].rows
        if row[0] == "random"
    )
    mean, width = map(float, cell.split(" ± "))
    assert (mean, width) == (pytest.approx(of.mean(), rel=0.02), pytest.approx(half, rel=0.05))
    assert cell in seen.words


def sweep_frame(n=40, seed=1):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "run": range(n),
            "replication": np.arange(n) % 4,
            "seed": 0,
            "mechanism.kind": np.repeat(["stackelberg", "random"], n // 2),
            "population.rho.sigma": np.tile(np.repeat(np.linspace(0.1, 0.5, 5), 4), n // 20),
            "status": "done",
            "error": None,
            "verdict": "converged",
            "rounds": rng.integers(5, 9, n),
            "participation": rng.uniform(size=n),
            "mean_epsilon": rng.uniform(size=n),
            "payment": 5.0,
            "welfare": np.arange(n, dtype=float),
        }
    )


SWEEP = {
    "title": "",
    "seed": 3,
    "mode": "grid",
    "axes": ["mechanism.kind", "population.rho.sigma"],
    "replications": 4,
    "n_runs": 40,
    "versions": {"python": "3.12"},
}


def test_the_means_of_a_sweep_are_those_of_its_runs():
    frame = sweep_frame()
    page = sweep_page(frame, SWEEP, fa.Scenario(), "")
    checked(render_html(page))
    found = tables(page)
    by = found["By mechanism.kind and population.rho.sigma"]
    assert list(by.head) == [
        *("kind", "sigma", "participation", "mean epsilon", "welfare (currency)", "runs"),
    ]
    first = frame.head(4)["welfare"]
    half = stats.t.ppf(0.975, 3) * first.std(ddof=1) / 2
    mean, width = map(float, by.rows[0][4].split(" ± "))
    assert (mean, width) == (pytest.approx(1.5), pytest.approx(half, abs=0.06))
    marginal = found["By population.rho.sigma, averaged over all other axes"]
    assert [row[-1] for row in marginal.rows] == ["8"] * 5
    words = [block.text for s in page.sections for block in s.blocks if isinstance(block, Words)]
    assert "Equal in all runs: payment (currency) = 5." in words


def test_failed_and_missing_runs_of_a_sweep_are_listed():
    frame = sweep_frame()
    frame.loc[3, ["status", "error"]] = ["failed", HOSTILE]
    frame.loc[5:9, "status"] = "missing"
    page = sweep_page(frame, SWEEP, fa.Scenario(), "")
    assert [block.word for block in page.lead[:2]] == ["Incomplete", "Failures"]
    assert "5 of 40 runs are missing" in page.lead[0].text
    counted = tables(page)["By mechanism.kind, averaged over all other axes"].rows
    assert [row[-1] for row in counted] == ["14", "20"]  # 5 missing and 1 failed are left out
    (section,) = [section for section in page.sections if section.title == "Failed runs"]
    assert section.blocks[1].rows == [["3", "stackelberg", "0.1", HOSTILE]]
    assert "img" not in checked(render_html(page)).tags


def test_a_sample_of_many_points_is_cut_into_bins():
    frame = sweep_frame(400)
    frame["population.rho.sigma"] = np.random.default_rng(2).uniform(size=400)
    page = sweep_page(frame, SWEEP | {"n_runs": 400}, fa.Scenario(), "")
    found = tables(page)
    assert "By mechanism.kind and population.rho.sigma" not in found
    rows = found["By population.rho.sigma, averaged over all other axes"].rows
    assert [row[-1] for row in rows] == ["50"] * 8
    places = [float(row[0]) for row in rows]
    assert places == pytest.approx(
        np.quantile(frame["population.rho.sigma"], np.arange(1, 16, 2) / 16), abs=0.02
    )


def test_a_sweep_that_has_not_ended_can_be_reported(tmp_path):
    overrides = ["sweep.replications=2", "sweep.axes={'population.rho.sigma' = [0.01, 1.0]}"]
    scenario = fa.load_scenario("scenarios/heterogeneity/spread.toml", overrides)
    sweep = fa.run_sweep(scenario, tmp_path / "sweep")
    (sweep.path / "sweep.parquet").unlink()
    (sweep.path / "runs" / "000003.json").unlink()
    seen = checked(fa.write_report(sweep.path).read_text())
    assert "1 of 4 runs are missing" in seen.words


def test_a_report_loads_neither_torch_nor_mesa(written):
    assert "matplotlib" in written[1]
    assert not written[1] & {"torch", "mesa", "sklearn", "numba"}


def test_an_axis_of_a_sweep_is_no_setting():
    scenario = fa.load_scenario("quickstart", ["learning=best-response", "game.budget=5"])
    axes = ["mechanism.kind", "population.rho.sigma", "game.alpha", "rounds.maximum"]
    rows = dict(settings_table(scenario, axes).rows)
    assert "Mechanism" not in rows
    assert "sigma = (axis)" in rows["Unit privacy cost rho"]
    assert "median = 0.2" in rows["Unit privacy cost rho"]
    assert "alpha = (axis), beta = 28.7" in rows["Value of the net to the server"]
    assert "or ended after (axis) rounds" in rows["Start and end"]
    assert rows["Payment cap B"].startswith("in a contest, chosen by the server: anticipate")
    assert rows["Payment cap B"].endswith("under other mechanisms, 5, currency per round")
    assert "Mechanism" in dict(settings_table(scenario).rows)


def test_options_that_are_not_set_are_not_shown():
    for name in shipped_files():
        for _, text in settings_table(fa.load_scenario(name)).rows:
            assert "None" not in text


@pytest.mark.parametrize(("closed_form", "shown"), [(0.0, "-"), (1e-17, "-"), (1.6, "2.5e-01")])
def test_a_difference_is_relative_to_a_value_that_is_not_zero(closed_form, shown):
    form = dict.fromkeys(("payment", "n_active", "total_epsilon", "mean_epsilon"), 4.0)
    form |= {"server_utility": 30.0, "threshold": 1.0, "tau": 2.0, "status": "solved"}
    form |= {"mechanism": "stackelberg", "average_over": "active"}
    market = form | {"node_utility": 2.0}
    table = equilibrium_table(form | {"node_utility": closed_form}, market)
    (row,) = (row for row in table.rows if row[0] == "utility of all nodes")
    assert row[3] == shown
