# %% [markdown]
# # Free riders: the gain from misreporting, and its cost to other nodes and the net
#
# One, two or six of 20 nodes with equal costs report more epsilon than they spend, and add the
# noise of a smaller one. The server pays for the report. Under a small cap each truthful node sells
# an epsilon of about 0.5 per round, under a large one about 5. Every market is trained twice: as it
# is, and with the server's test of each upload for excess noise (docs/free_riders.md).

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from common import begin, number, table

from fcfn_abm.dp import gaussian_sigma
from fcfn_abm.dp.check import as_factor, smallest_excess
from fcfn_abm.report.theme import theme

# %%
study = begin("free_riders")
CHECK = "privacy.check.false_alarm=1e-6"
checked = replace(study, out=study.out / "checked", overrides=(*study.overrides, CHECK))


def rows(study, kind):
    """Return utilities of both groups, flagged nodes and accuracy, one row per run."""
    sweep = study.sweep()
    frame = study.frame()
    found = []
    for run in frame["run"]:
        record = sweep.record(run)
        training, nodes = record.run["training"], record.nodes
        groups = training["arms"][0]["free_riders"]
        liars, honest = groups["misreporting"], groups["honest"]
        fair = honest["utility_if_all_were_honest"]
        found.append(
            {
                "run": run,
                "fair": fair,
                "liar, unchecked": liars["utility_unchecked"] / fair,
                "liar": liars["utility"] / fair,
                "honest": honest["utility"] / fair,
                "liars": liars["n_nodes"],
                "epsilon of a liar": nodes.loc[nodes["misreport_factor"] > 1, "epsilon"].mean(),
                "samples": nodes["n_samples"].mean(),
                "parameters": training["n_parameters"],
                "flagged": liars["n_flagged"] / liars["n_nodes"],
                "flagged in round": liars["first_flagged"],
                "truthful flagged": honest["n_flagged"],
            }
        )
    frame = frame.rename(
        columns={"population.misreport.factor": "factor", "game.budget": "cap", "n_nodes": "N"}
    )
    return frame.merge(pd.DataFrame(found), on="run").assign(kind=kind)


frame = pd.concat([rows(study, "no check"), rows(checked, "check")], ignore_index=True)
open_market, tested = (frame[frame["kind"] == kind] for kind in ("no check", "check"))


# %% [markdown]
# ## Closed form
#
# Let k of n nodes misreport by the factor f, and a = (n - 1) / (n - k (1 - 1/f)). In units of the
# utility without misreports, a truthful node gets n^2 (1 - a)^2 and a misreporting one n^2 (1 -
# a / f)^2, as long as a < 1. Otherwise only misreporting nodes are active: n^2 / k^2.


# %%
def compute_utilities_in_theory(factor, n_liars, n_nodes):
    """Return utilities of a misreporting and a truthful node, relative to no misreports."""
    a = (n_nodes - 1) / (n_nodes - n_liars * (1 - 1 / factor))
    alone = a >= 1
    liar = np.where(alone, 1 / n_liars, 1 - np.minimum(a, 1) / factor)
    return n_nodes**2 * liar**2, n_nodes**2 * np.where(alone, 0, 1 - a) ** 2


# %%
COLOURS = {1: "#009E73", 2: "#0072B2", 6: "#D55E00"}
MARKERS = {1: "o", 2: "s", 6: "D"}
caps = sorted(frame["cap"].unique())
factors = np.array(sorted(frame["factor"].unique()))
n_nodes = frame["N"].iloc[0]
smooth = np.geomspace(1, factors.max(), 400)

# the smallest factor detected in one upload with 99 % probability (docs/free_riders.md)
settings = checked.sweep().scenario
delta, a_round = (
    settings.privacy.delta,
    settings.privacy.check.false_alarm / settings.training.rounds,
)
epsilons = np.geomspace(0.5, 200, 60)
noise = gaussian_sigma(epsilons, delta) * 2 / tested["samples"].mean()
excess = smallest_excess(int(tested["parameters"].iloc[0]), noise, 1.0, a_round)
smallest = as_factor(excess, epsilons, delta)


def look(n_liars):
    """Return colour, marker and label of the markets with this number of misreporting nodes."""
    n = int(n_liars)
    name = f"{n} liar{'s' if n > 1 else ''} of {n_nodes}"
    return COLOURS.get(n, "0.3"), MARKERS.get(n, "v"), name


def points(axes, frame, column, **options):
    """Draw every run, and a line through the means."""
    for n_liars, part in frame.groupby("liars"):
        colour, marker, _ = look(n_liars)
        style = {"color": colour, "marker": marker, "markersize": 6, **options}
        axes.plot(part["factor"], part[column], **{**style, "linestyle": "", "alpha": 0.55})
        means = part.groupby("factor")[column].mean()
        axes.plot(means.index, means, **{**style, "marker": ""})


with theme():
    figure, panels = plt.subplots(2, 3, figsize=(13.5, 7.4))
    (liar, honest, found_out), (loss, *nets) = panels
    for n_liars in sorted(frame["liars"].unique()):
        colour, marker, name = look(n_liars)
        part = open_market[open_market["liars"] == n_liars]
        for axes, column, line in zip(
            (liar, honest),
            ("liar", "honest"),
            compute_utilities_in_theory(smooth, n_liars, n_nodes),
            strict=True,
        ):
            axes.plot(smooth, line, color=colour, linewidth=1.3)
            axes.plot(part["factor"], part[column], marker, color=colour, label=name, markersize=6)
    liar.set(title="A liar, unchecked", yscale="log", ylabel="times what truthful reports pay")
    liar.legend(fontsize="small", loc="lower right")
    honest.set(title="An honest node", ylabel="times what it would be", ylim=(-0.03, 1.03))
    for cap, style in zip(caps, ("-", "--"), strict=True):
        points(loss, tested[tested["cap"] == cap], "liar", linestyle=style)
        loss.plot([], [], color="0.3", linestyle=style, label=f"cap {cap:g}")
    found_out.plot(epsilons, smallest, color="0.2", linewidth=1.3)
    for is_found, face, name in ((True, "#0072B2", "found"), (False, "white", "not found")):
        part = tested[(tested["flagged"] == 1) == is_found]
        found_out.plot(
            *(part["epsilon of a liar"], part["factor"]),
            "o",
            color="#0072B2",
            markerfacecolor=face,
            label=name,
        )
    found_out.set(title="Lies that the check finds", xscale="log", yscale="log", ylim=(0.95, 40))
    found_out.set(xlabel="epsilon that a liar reports", ylabel="reported over spent epsilon")
    found_out.set_yticks([1, 2, 4, 10, 30], ["1", "2", "4", "10", "30"])
    found_out.legend(fontsize="small", loc="upper left")
    loss.axhline(1, color="0.5", linewidth=1)
    loss.set(title="A liar, checked", ylabel="times what truthful reports pay")
    loss.set_yscale("symlog", linthresh=10)
    loss.legend(fontsize="small")
    for cap, axes in zip(caps, nets, strict=True):
        for kind, style in (("no check", ":"), ("check", "-")):
            part = frame[(frame["kind"] == kind) & (frame["cap"] == cap)]
            points(axes, part, "accuracy", linestyle=style)
            axes.plot([], [], color="0.3", linestyle=style, label=kind)
        axes.set(title=f"The net, cap {cap:g}", ylim=(0, 1))
        axes.yaxis.set_major_formatter("{x:.0%}")
    nets[0].set_ylabel("test accuracy")
    nets[0].legend(fontsize="small")
    for axes in (liar, honest, loss, *nets):
        axes.set(xscale="log", xlabel="reported over spent epsilon")
        axes.set_xticks(factors, [f"{factor:g}" for factor in factors])
        axes.minorticks_off()
    picture = study.save(figure, "free_riders")
picture

# %% [markdown]
# ## Findings

# %%
theory = np.array(
    [
        compute_utilities_in_theory(f, k, n_nodes)
        for f, k in zip(frame["factor"], frame["liars"], strict=True)
    ]
)
off = np.abs(frame[["liar, unchecked"]].to_numpy()[:, 0] / theory[:, 0] - 1).max()
gains = (
    tested.groupby(["cap", "liars", "factor"])
    .agg(
        unchecked=("liar, unchecked", "mean"),
        checked=("liar", "mean"),
        honest=("honest", "mean"),
        found=("flagged", "mean"),
        first=("flagged in round", "min"),
    )
    .reset_index()
)
accuracy = frame.pivot_table(
    index=["cap", "liars", "factor"], columns="kind", values="accuracy"
).reset_index()
gains = gains.merge(accuracy, on=["cap", "liars", "factor"])
shown = pd.DataFrame(
    {
        "cap": [f"{x:g}" for x in gains["cap"]],
        "liars": gains["liars"],
        "factor": [f"{x:g}" for x in gains["factor"]],
        "a liar": [f"{x:.1f}" for x in gains["unchecked"]],
        "a liar, checked": [f"{x:.1f}" for x in gains["checked"]],
        "an honest node": [f"{x:.2f}" for x in gains["honest"]],
        "found": [f"{x:.0%}" for x in gains["found"]],
        "first in round": [
            "-" if np.isnan(x) else f"{x:.0f}" for x in gains["first"].astype(float)
        ],
        "accuracy": [f"{x:.0%}" for x in gains["no check"]],
        "accuracy, checked": [f"{x:.0%}" for x in gains["check"]],
    }
)
out = gains[gains["honest"] < 1e-6]
alone = out.groupby("liars")["factor"].min()
pays = gains[gains["checked"] > 1].groupby("cap").size().reindex(caps, fill_value=0)
each = len(gains) // len(caps)
least = {cap: gains[(gains["cap"] == cap) & (gains["found"] == 1)]["factor"].min() for cap in caps}
found = "; ".join(
    f"at the cap {cap:g} misreporting still pays in {pays[cap]} of {each} markets, and "
    + (f"{least[cap]:g} is the smallest with all flagged" if least[cap] == least[cap]
       else "at no factor were all flagged")
    for cap in caps
)  # fmt: skip

small, large = (
    tested.loc[tested["cap"] == cap, "epsilon of a liar"] for cap in (caps[0], caps[-1])
)

study.report(f"""\
Relative to each node's utility without misreports; means of {frame["replication"].nunique()}
trainings of each market:

{table(shown)}

- Markets agree with the closed form (largest error of a misreporting node's utility: {off:.1g}).
  Unchecked,
  the best misreport pays {gains["unchecked"].max():.0f} times as much as a truthful report.
- Truthful nodes are priced out entirely from a factor of {
    ", ".join(f"{factor:g} on with {k} liars" for k, factor in alone.items())
} (of the factors tried;
  the rule is k (1 - 1/f) >= 1).
- The check: {found}. It flagged {tested["truthful flagged"].sum():.0f} truthful nodes in
  {len(tested)}
  trainings.
- Reason: the larger the reported epsilon, the smaller the claimed noise, and the more of it is
  hidden behind the learning
  signal. Misreporting nodes report {number(small.min())} to {number(small.max())} at the cap
  {caps[0]:g} and
  {number(large.min())} to {number(large.max())} at {caps[-1]:g}; the line in the figure is the
  smallest factor detected in one upload with 99 %.
- The check does not bring the truthful nodes back, because the market has ended before training.
""")
