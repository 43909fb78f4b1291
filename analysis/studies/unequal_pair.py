# %% [markdown]
# # An unequal pair: how much two nodes may differ
#
# Two nodes, of which one costs r times as much as the other, move the fraction g of the way to
# their best response. Which pairs converge?
#
# At equilibrium the low-cost node's best response has the slope (r - 1) / 2, the other's -(r - 1) /
# (2 r). With minus their product, p = (r - 1)^2 / (4 r), a round multiplies errors by a matrix
# whose eigenvalues are inside the unit circle for **g < 2 / (1 + sqrt(p))** with moves in turn, and
# for **g < 2 / (1 + p)** with simultaneous moves.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from common import begin, table, verdict_map

from fcfn_abm.report.theme import theme

# %%
study = begin("unequal_pair")
frame = study.frame()
frame = frame.rename(
    columns={
        "learning.cautious": "cautious",
        "rounds.order": "order",
        "learning.gain": "gain",
    }
)
low = study.sweep().scenario.population.rho.options["low"]
frame["ratio"] = (frame["population.rho.high"] / low).round(6)
frame["settled"] = frame["verdict"] == "converged"


def border(order, ratio):
    """Return the gain below which plain steps converge."""
    p = (ratio - 1) ** 2 / (4 * ratio)
    return 2 / (1 + (np.sqrt(p) if order == "in_turn" else p))


borders = [border(order, r) for order, r in zip(frame["order"], frame["ratio"], strict=True)]
frame["expected"] = frame["gain"] < borders
frame.groupby(["cautious", "order", "verdict"]).size()

# %%
TITLES = {"in_turn": "in turn", "simultaneous": "simultaneous"}
with theme():
    figure, panels = plt.subplots(
        2, 2, figsize=(10.5, 7.6), sharex=True, sharey=True, layout="constrained"
    )
    for row, cautious in zip(panels, (False, True), strict=True):
        for axes, (order, title) in zip(row, TITLES.items(), strict=True):
            part = frame[(frame["order"] == order) & (frame["cautious"] == cautious)]
            drawn = verdict_map(axes, part, x="ratio", y="gain", y_log=False)
            axes.set(title=f"{'Cautious' if cautious else 'Plain'} steps, {title}")
            r = np.geomspace(frame["ratio"].min(), frame["ratio"].max(), 300)
            axes.plot(
                r, border(order, r), color="black", linewidth=1.6, label="border of plain steps"
            )
    for axes in panels[:, 0]:
        axes.set_ylabel("gain")
    for axes in panels[1]:
        axes.set_xlabel("cost ratio of the two nodes, r")
    panels[0, 1].legend(loc="upper right", frameon=True)
    figure.colorbar(drawn, ax=panels, label="share of runs that converge", format="{x:.0%}")
    picture = study.save(figure, "unequal_pair")
picture

# %% [markdown]
# ## Findings

# %%
plain, careful = frame[~frame["cautious"]], frame[frame["cautious"]]
right = (plain["settled"] == plain["expected"]).groupby(plain["order"]).mean()
wrong = plain[plain["settled"] != plain["expected"]]
caught = wrong[wrong["expected"] & (wrong["verdict"] == "cycling")]


def largest_ratio(part, order, gain):
    """Return the largest ratio up to which all runs with a gain converge, or a dash."""
    rows = part[(part["order"] == order) & (part["gain"] == gain)]
    shares = rows.groupby("ratio")["settled"].mean()
    good = shares[(shares == 1).cummin()]
    return f"{good.index.max():g}" if len(good) else "-"


def exact_ratio(order, gain):
    """Return the ratio from which plain steps with a gain do not converge."""
    p = (2 / gain - 1) ** (2 if order == "in_turn" else 1)
    return 1 + 2 * p + 2 * np.sqrt(p * (p + 1))


gains = [gain for gain in (0.3, 0.5, 0.7, 1.0) if gain in set(frame["gain"])]
rows = [
    {
        "order": TITLES[order],
        "gain": f"{gain:g}",
        "border, plain": f"{exact_ratio(order, gain):.2f}",
        "settles up to, plain": largest_ratio(plain, order, gain),
        "settles up to, cautious": largest_ratio(careful, order, gain),
    }
    for order in TITLES
    for gain in gains
]
where = (
    f"""
- A border is about small errors: from a far start {len(caught)} runs with gains below it are caught
  in a cycle all the same, at ratios of {caught["ratio"].min():g} and more."""
    if len(caught)
    else ""
)
told_right = ", ".join(f"{share:.1%} ({TITLES[order]})" for order, share in right.items())
lost = careful[~careful["settled"]]
failing = (
    f"; the others have gains of {lost['gain'].min():g} or more, and move "
    + " or ".join(TITLES[order] for order in lost["order"].unique())
    if len(lost)
    else ""
)

study.report(f"""\
The largest ratio of the two costs up to which all runs settle (the sweep goes to
{frame["ratio"].max():g}), beside the exact border of plain steps:

{table(pd.DataFrame(rows))}

- Plain steps: the borders predict convergence in {told_right} of the runs.{where}
- With full steps, g = 1, both borders are p = 1, which is r = 3 + 2 sqrt(2) =
  {3 + 2 * np.sqrt(2):.3f}. Half steps in turn reach r = {exact_ratio("in_turn", 0.5):.1f}, at once
  {exact_ratio("simultaneous", 0.5):.1f}.
- Cautious steps, the default below a gain of 1, settle in {careful["settled"].mean():.1%} of
  {len(careful)} runs{failing}.
""")
