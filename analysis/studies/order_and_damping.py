# %% [markdown]
# # Order and damping: which markets of equal nodes converge
#
# Between 2 and 64 nodes with equal costs move the fraction g ("gain") of the way to their best
# response, one after another or all at once. Which markets converge?
#
# At equilibrium, the best response of each of n equal nodes has the slope -(n - 2) / (2 (n - 1)) in
# the others' total. With simultaneous moves, a common error is multiplied by 1 - g n / 2 per round,
# so play converges only for **g < 4 / n**; differences between nodes shrink by 1 - g (n / (2 (n -
# 1))) for every g.

# %%
import matplotlib.pyplot as plt
import numpy as np
from common import begin, table, verdict_map

from fcfn_abm.report.theme import theme

# %%
study = begin("order_and_damping")
frame = study.frame()
frame = frame.rename(
    columns={
        "rounds.order": "order",
        "learning.gain": "gain",
        "population.n_nodes": "N",
    }
)
frame["settled"] = frame["verdict"] == "converged"
frame["expected"] = (frame["order"] == "in_turn") | (frame["gain"] < 4 / frame["N"])
frame.groupby(["order", "verdict"]).size()

# %%
TITLES = {"in_turn": "In turn", "simultaneous": "Simultaneous"}
with theme():
    figure, panels = plt.subplots(1, 2, figsize=(10.5, 4.4), sharey=True, layout="constrained")
    for axes, (order, title) in zip(panels, TITLES.items(), strict=True):
        drawn = verdict_map(axes, frame[frame["order"] == order], x="N", y="gain")
        axes.set(title=title, xlabel="number of nodes, n (all active)")
    n = np.geomspace(frame["N"].min(), 2 * frame["N"].max(), 200)
    panels[1].plot(n, 4 / n, color="black", linewidth=1.6, label="gain = 4/n")
    panels[1].legend(loc="lower left", frameon=True)
    panels[0].set_ylabel("gain")
    figure.colorbar(drawn, ax=panels, label="share of runs that converge", format="{x:.0%}")
    picture = study.save(figure, "order_and_damping")
picture

# %% [markdown]
# ## Findings

# %%
agree = frame["settled"] == frame["expected"]
by_order = dict(iter(frame.groupby("order")))
wrong = frame[~agree]
at_once, in_turn = (by_order.get(order, frame[:0]) for order in ("simultaneous", "in_turn"))
lost = at_once[~at_once["settled"]]
how = lost["verdict"].value_counts()
settled = frame[frame["settled"]]
rounds = settled.pivot_table(index="N", columns=["order"], values="rounds", aggfunc="median")
best = settled.groupby(["order", "N", "gain"])["rounds"].mean().reset_index()
best = best.loc[best.groupby(["order", "N"])["rounds"].idxmin()]
fastest = best.pivot_table(index="N", columns="order", values=["gain", "rounds"])
shown = fastest.reset_index()
shown.columns = [" ".join(reversed(column)).strip() for column in shown.columns]
shown = shown.rename(columns=lambda name: name.replace("in_turn", "in turn,"))
shown = shown.rename(columns=lambda name: name.replace("simultaneous", "simultaneous,"))
ordered = ("N", "in turn", "simultaneous")
shown = shown[[name for order in ordered for name in shown if order in name]]
formats = {name: ".2g" if "gain" in name else ".0f" for name in shown.columns}

study.report(f"""\
- In turn {in_turn["settled"].mean():.0%} of {len(in_turn)} runs settle, at every n and gain.
- Simultaneously {at_once["settled"].mean():.0%} of {len(at_once)} do. g < 4 / n predicts which in
  {agree[frame["order"] == "simultaneous"].mean():.1%} of the runs{
    "; it is wrong at "
    + ", ".join(sorted({f"n = {row.N}, g = {row.gain:g}" for row in wrong.itertuples()}))
    if len(wrong)
    else ""
}.
- The other runs end as {", ".join(f"{word} ({count})" for word, count in how.items())}.
- The gain that settles in the fewest rounds (to {study.sweep().scenario.rounds.tolerance:g}):

{table(shown, formats)}
""")
