"""The numbers of docs/which_mechanism.md are those of the tables that are shipped with it."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

DOCS = Path("docs")
TABLES = {  # by cap: the default benchmark has all, and a second run trained at the largest one
    "all": pd.read_csv(DOCS / "data" / "which_mechanism.csv"),
    "20": pd.read_csv(DOCS / "data" / "which_mechanism_b20.csv"),
}
PAGE = " ".join((DOCS / "which_mechanism.md").read_text(encoding="utf-8").split())
EVERY = TABLES["all"]


def cell(costs, data, budget, mode, mechanism, table="all"):
    rows = TABLES[table]
    found = rows[
        (rows["costs"] == costs)
        & (rows["data"] == data)
        & (rows["budget"] == budget)
        & (rows["mode"] == mode)
        & (rows["mechanism"] == mechanism)
    ]
    assert len(found) == 1
    return found.iloc[0]


def interval(row, quantity, scale=1, form="{:.1f}"):
    mean, low, high = (
        form.format(scale * row[quantity + end]).replace("-", "\u2212")
        for end in ("", "_low", "_high")
    )
    return f"{mean} ({low} to {high})"


def utility(costs, data, mechanism, budget=20.0):
    row = cell(costs, data, budget, "equal-cap", mechanism)
    return interval(row, "server_utility_difference", form="{:+.1f}")


def price(costs, data, mechanism, budget=20.0):
    return interval(
        cell(costs, data, budget, "equal-epsilon", mechanism), "payment_ratio", form="{:.2f}"
    )


def share(costs, data, quantity, mechanism="stackelberg"):
    row = cell(costs, data, 20.0, "equal-cap", mechanism)
    return interval(row, quantity, 100, "{:.0f}") + " %"


def spread(mode, mechanism, quantity, form="{:.2f}", rows=EVERY):
    values = rows.loc[(rows["mode"] == mode) & (rows["mechanism"] == mechanism), quantity]
    low, high = form.format(values.min()), form.format(values.max())
    return f"{low} to {high}".replace("-", "\u2212")


def reached(mode, mechanism):
    rows = EVERY[(EVERY["mode"] == mode) & (EVERY["mechanism"] == mechanism)]
    return f"{rows['n_reached'].sum():,} of {rows['n'].sum():,}"


def best(mode):
    """In how many cells each mechanism is best, of those that always reach and never hurt."""
    counts = {}
    rows = EVERY[EVERY["mode"] == mode]
    for _, part in rows.groupby(["costs", "data", "budget"]):
        eligible = part[(part["n_reached"] == part["n"]) & (part["n_with_losses"] == 0)]
        name = eligible.loc[eligible["server_utility"].idxmax(), "mechanism"]
        counts[name] = counts.get(name, 0) + 1
    return counts


def largest(costs):
    return cell(costs, "independent", 20.0, "equal-cap", "stackelberg")["largest_epsilon"]


def static_without_trade():
    rows = EVERY[(EVERY["mechanism"] == "static") & (EVERY["mode"] == "equal-cap")]
    return rows.loc[rows["budget"] == 1.0, "n_no_trade"].sum()


CLAIMS = [
    f"best in {best('equal-cap')['stackelberg']} of 24 cells",
    f"`static` in {best('equal-cap')['static']}",
    f"`posted-price` in {best('equal-cap')['posted-price']}",
    f"at narrow costs {utility('narrow', 'independent', 'posted-price')}",
    f"at skewed costs {utility('skewed', 'independent', 'posted-price')}",
    f"`static` is at {utility('skewed', 'independent', 'static')}",
    f"`random` at {utility('skewed', 'independent', 'random')}",
    f"`posted-price` pays {spread('equal-epsilon', 'posted-price', 'payment_ratio')} times",
    f"{price('skewed', 'independent', 'posted-price', 1.0)} at B = 1",
    f"{price('skewed', 'independent', 'posted-price')} at B = 20",
    f"`tullock` pays {spread('equal-epsilon', 'tullock', 'payment_ratio')} times",
    f"`ic-mle` {spread('equal-epsilon', 'ic-mle', 'payment_ratio')} times",
    f"{price('narrow', 'independent', 'ic-mle')} with narrow costs",
    f"{price('skewed', 'independent', 'ic-mle')} with skewed ones",
    f"`yang` pays {spread('equal-epsilon', 'yang', 'payment_ratio')} times",
    f"`myerson-cap` pays {spread('equal-epsilon', 'myerson-cap', 'payment_ratio')} times",
    f"spend the cap in {reached('equal-spending', 'fair-query')}",
    f"({reached('equal-spending', 'vcg')} for `vcg`)",
    f"the same epsilon in {reached('equal-epsilon', 'fair-query')}",
    f"{share('narrow', 'independent', 'unusual_third')} of the third with the most unusual labels",
    f"{share('outliers', 'independent', 'unusual_third')} with outliers",
    f"from {share('narrow', 'independent', 'participation')} to "
    f"{share('narrow', 'coupled', 'participation')}",
    f"`weighted` pays {spread('equal-epsilon', 'weighted', 'payment_ratio')} times",
    f"up to {100 * EVERY.loc[EVERY['mechanism'] == 'static', 'largest_regret'].max():.0f} %",
    f"{share('skewed', 'independent', 'participation')} of them",
    f"an epsilon of {largest('skewed'):.0f}",
    f"in {static_without_trade()} of 160 populations",
]


def test_nobody_with_unusual_labels_is_left_where_costs_follow_them():
    for costs in ("narrow", "outliers"):
        assert cell(costs, "coupled", 20.0, "equal-cap", "stackelberg")["unusual_third"] == 0


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_number_of_the_page_is_that_of_the_table(claim):
    assert claim in PAGE


def trained(table):
    rows = TABLES[table]
    return rows[rows["n_trained"] > 0].set_index("mechanism")


@pytest.mark.parametrize(("table", "column"), [("all", 1), ("20", 4)])
def test_the_page_shows_the_accuracy_of_every_net_that_was_trained(table, column):
    text = (DOCS / "which_mechanism.md").read_text(encoding="utf-8")
    lines = [line.split("|")[1:-1] for line in text.splitlines() if re.match(r"\| `", line)]
    shown = {cells[0].strip(" `"): [cell.strip() for cell in cells] for cells in lines}
    for name, row in trained(table).iterrows():
        accuracy, difference, largest = shown[name][column : column + 3]
        assert accuracy == interval(row, "accuracy", 100, "{:.1f}")
        if name != "stackelberg":
            assert difference == interval(row, "accuracy_difference", 100, "{:+.1f}")
        assert largest == f"{row['largest_true_epsilon']:.1f}"
    for name, cells in shown.items():
        if name not in trained(table).index:
            assert cells[column] == "-"


def test_no_interval_of_a_share_leaves_its_bounds():
    for rows in TABLES.values():
        for quantity in ("accuracy", "participation", "expensive_third", "unusual_third"):
            for end in ("_low", "_high"):
                assert rows[quantity + end].dropna().between(0, 1).all()


def test_terms_that_are_reached_are_equal_within_a_per_cent():
    for mode, quantity in (
        ("equal-spending", "server_payment"),
        ("equal-epsilon", "mean_epsilon"),
    ):
        rows = EVERY[(EVERY["mode"] == mode) & (EVERY["n_reached"] == EVERY["n"])]
        own = rows[rows["mechanism"] == "stackelberg"].set_index(["costs", "data", "budget"])
        index = pd.MultiIndex.from_frame(rows[["costs", "data", "budget"]])
        aims = own.loc[index, quantity].to_numpy()
        np.testing.assert_allclose(rows[quantity], aims, rtol=0.0101)
