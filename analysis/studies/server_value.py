# %% [markdown]
# # Server value: the effect of alpha and beta, and where trade does not pay off
#
# The server gains beta ln(1 + alpha eps_g) from the model and pays the cap B. Over the plane of
# alpha and beta: does it trade, how much does it spend, and what is its utility? Epsilon is
# averaged over the active nodes, or over the population.
#
# The nodes respond to a cap B with S = B (n - 1) / tau, so eps_g = kappa B with kappa = (n - 1) /
# (n_g tau). The best cap is B* = beta - 1 / (alpha kappa), and **no cap pays off if beta <= 1 /
# (alpha kappa)**.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from common import begin, edges, format_range, table
from matplotlib.colors import LogNorm

import fcfn_abm as fa
from fcfn_abm import build
from fcfn_abm.report.theme import theme

# %%
study = begin("server_value")
frame = study.frame()
frame = frame.rename(
    columns={"game.average_over": "over", "game.alpha": "alpha", "game.beta": "beta"}
)

# %% [markdown]
# ## kappa from the costs


# %%
def kappas(scenario, over):
    """Return kappa of each replication's population."""
    found = []
    for run in build.list_runs(scenario):
        if run.scenario.game.average_over == over and run.point == first[over]:
            rho = build.draw_population(run.scenario).rho
            contest = fa.nash_equilibrium(rho, 1.0)
            n_g = contest.n_active if over == "active" else len(rho)
            found.append((contest.n_active - 1) / (n_g * contest.tau))
    return np.array(found)


scenario = study.sweep().scenario
first = {}
for run in build.list_runs(scenario):
    first.setdefault(run.scenario.game.average_over, run.point)
kappa = {over: kappas(scenario, over) for over in first}
kappa

# %%
frame["kappa"] = [
    kappa[over][i] for over, i in zip(frame["over"], frame["replication"], strict=True)
]
frame["pull"] = frame["alpha"] * frame["beta"] * frame["kappa"]  # trade pays off above 1
frame["trades"] = frame["verdict"] != "no-trade"
frame["best_cap"] = (frame["beta"] - 1 / (frame["alpha"] * frame["kappa"])).clip(lower=0)
frame["share"] = frame["budget"] / frame["beta"]

# %%
TITLES = {"active": "Mean ε over the active nodes", "population": "Mean ε over all nodes"}
with theme():
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.6), sharey=True, layout="constrained")
    for axes, (over, title) in zip(panels, TITLES.items(), strict=True):
        part = frame[frame["over"] == over]
        cells = part.pivot_table(index="beta", columns="alpha", values="share")
        drawn = axes.pcolormesh(
            edges(cells.columns.to_numpy()),
            edges(cells.index.to_numpy()),
            cells.where(cells > 0).to_numpy(),
            cmap="viridis",
            norm=LogNorm(0.05, 1),
            edgecolor="white",
            linewidth=0.6,
        )
        alpha = edges(cells.columns.to_numpy())[[0, -1]]
        axes.plot(alpha, 1 / (alpha * kappa[over].mean()), color="#D55E00", linewidth=2)
        axes.set(
            xscale="log",
            yscale="log",
            title=title,
            xlabel="α",
            xlim=alpha,
            ylim=edges(cells.index.to_numpy())[[0, -1]],
        )
        axes.set_facecolor("#E8E8E8")
        axes.grid(visible=False)
        axes.text(0.05, 0.07, "no trade", transform=axes.transAxes, color="0.3")
    panels[0].set_ylabel("β (currency)")
    panels[1].plot([], [], color="#D55E00", linewidth=2, label="β = 1/(ακ)")
    panels[1].legend(loc="upper right", frameon=True)
    bar = figure.colorbar(drawn, ax=panels, label="final cap, B/β")
    bar.set_ticks([0.05, 0.1, 0.2, 0.5, 1.0], labels=["0.05", "0.1", "0.2", "0.5", "1"])
    bar.minorticks_off()
    picture = study.save(figure, "server_value")
picture

# %% [markdown]
# ## Findings

# %%
frame["pays"] = frame["pull"] > 1
paying = frame[frame["pays"]]
error = (paying["budget"] / paying["best_cap"] - 1).abs()
found, lost = error < 1e-3, paying[error >= 1e-3]
n_active = paying.groupby("replication")["equilibrium_n_active"].max()
idle = frame[~frame["pays"]]
ratio = kappa["active"].mean() / kappa["population"].mean() if "population" in kappa else 1.0
shares = frame.groupby("over")["pays"].mean()
near = f"alpha beta kappa below {lost['pull'].max():.2g}"
ends = ", ".join(f"{count} {word}" for word, count in lost["verdict"].value_counts().items())
mistakes = (
    f""" In the other {len(lost)}, all with {near}, it reads
  costs off the reports of nodes that have not settled yet, concludes that trade does not pay off,
  and
  cuts the cap to almost zero ({ends})."""
    if len(lost)
    else ""
)
well = paying[found]
rows = [
    {
        "alpha beta kappa": name,
        "runs": len(part),
        "B / beta": format_range(part["share"]),
        "server's utility / beta": format_range(part["server_utility"] / part["beta"]),
        "nodes' utility / beta": format_range(part["node_utility"] / part["beta"]),
    }
    for name, part in (
        ("1 to 3", well[well["pull"] < 3]),
        ("3 to 30", well[well["pull"].between(3, 30)]),
        ("above 30", well[well["pull"] > 30]),
    )
    if len(part)
]

study.report(f"""\
- Of {int(frame["n_nodes"].iloc[0])} nodes {format_range(n_active)} take part, at every alpha
  and beta at which trade pays: the cap moves how much they sell, and not who sells.
- Trade pays at
  {", ".join(f"{share:.0%} of the points ({over})" for over, share in shares.items())}. Where
  it does not, the played market ends without trade in {(~idle["trades"]).mean():.0%} of
  {len(idle)} runs.
- Averaged over the population kappa is {1 / ratio:.2g} times as large (n / N), and the region of no
  trade reaches {ratio:.2g} times as far up in beta. The same nodes, and the same market: a server
  that
  counts epsilon like that stops buying much earlier.
- Without being shown a cost the server ends within {error[found].max():.1e} of B* in {found.sum()}
  of
  {len(paying)} runs in which trade pays.{mistakes}
- Apart from beta, which sets the unit of money, alpha beta kappa alone counts (runs that found B*):

{table(pd.DataFrame(rows))}
""")
