# %% [markdown]
# # Data heterogeneity: who stays when unusual data make privacy costly
#
# A Dirichlet distribution assigns labels to 30 nodes, from nearly equal shares to one or two labels
# per node. A node's unit privacy cost is rho0 (1 + coupling d), where d is the distance of its
# label shares from the global ones. Which nodes does the market keep, and what does the net learn?
#
# With one full-batch step per round, the sum of the gradients does not depend on the partition.
# Without coupling, when all nodes have the same cost and train, skew alone changes nothing, so the
# effect of the coupling is due to the market. The data are 8 x 8 digits and the net is small: read
# differences, not levels.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from common import band, begin, half_interval, summary, table

from fcfn_abm.report.theme import theme

# %%
study = begin("data_heterogeneity")
sweep = study.sweep()
frame = study.frame().rename(
    columns={"population.rho.coupling": "coupling", "training.partition.dirichlet_alpha": "alpha"}
)
rows = []
for run in frame["run"]:
    record = sweep.record(run)
    nodes = record.nodes
    stay = nodes[nodes["active"]]
    arms = {arm["name"]: arm["accuracy"] for arm in record.run["training"]["arms"]}
    rows.append(
        {
            "run": run,
            "d_all": nodes["label_divergence"].mean(),
            "d_stay": stay["label_divergence"].mean(),
            "samples": stay["n_samples"].sum() / nodes["n_samples"].sum(),
            "without noise": arms.get("no-noise"),
        }
    )
frame = frame.merge(pd.DataFrame(rows), on="run")
weak, strong = frame["coupling"].min(), frame["coupling"].max()
coupled = frame[frame["coupling"] == strong]
alphas = sorted(frame["alpha"].unique())

# %%
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#6E6E6E"


def lines(axes, parts):
    """Draw means with intervals against alpha: label, frame, column, colour, line, marker."""
    for place, (label, part, column, colour, style, marker) in enumerate(parts):
        sns.lineplot(
            part.assign(alpha=part["alpha"] * 1.06**place),  # so that bars do not overlap
            x="alpha",
            y=column,
            color=colour,
            linestyle=style,
            marker=marker,
            markersize=7,
            errorbar=band,
            err_style="bars",
            label=label,
            ax=axes,
        )
    axes.set(xscale="log", xlabel="Dirichlet alpha (small: skewed)")
    axes.set_xticks(alphas, [f"{alpha:g}" for alpha in alphas], minor=False)
    axes.minorticks_off()


with theme():
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13.5, 4.1))
    free = frame[frame["coupling"] == weak]
    lines(
        left,
        [
            ("costs equal", free, "participation", GREY, "--", "s"),
            ("costs follow data", coupled, "participation", BLUE, "-", "o"),
        ],
    )
    left.set(title="Who takes part", ylabel="share of the nodes", ylim=(0, 1.05))
    left.yaxis.set_major_formatter("{x:.0%}")
    lines(
        middle,
        [
            ("all nodes", coupled, "d_all", GREY, "--", "s"),
            ("those who stay", coupled, "d_stay", BLUE, "-", "o"),
        ],
    )
    middle.set(title="How unusual their data are", ylabel="mean distance of labels, d", ylim=(0, 1))
    lines(
        right,
        [
            ("costs equal", free, "accuracy", GREY, "--", "s"),
            ("costs follow data", coupled, "accuracy", BLUE, "-", "o"),
            ("the same nodes, no noise", coupled, "without noise", ORANGE, ":", "D"),
        ],
    )
    right.set(title="What the net learns", ylabel="test accuracy", ylim=(0, 1))
    right.yaxis.set_major_formatter("{x:.0%}")
    picture = study.save(figure, "data_heterogeneity")
picture

# %% [markdown]
# ## Findings
#
# Both couplings have the same seeds, data and partitions, so their differences are paired by run.

# %%
means = summary(
    coupled, "alpha", ["participation", "samples", "d_all", "d_stay", "accuracy", "without noise"]
).sort_values("alpha")
wide = frame.pivot_table(
    index=["alpha", "replication"],
    columns="coupling",
    values=["accuracy", "server_utility", "without noise"],
)


def change(column):
    """Return the mean change due to the coupling, and its half-interval, for each alpha."""
    difference = wide[column][strong] - wide[column][weak]
    groups = difference.groupby("alpha")
    return groups.mean(), groups.agg(half_interval)


lost, lost_half = change("accuracy")
gained, _ = change("server_utility")
chosen, _ = change("without noise")
shown = pd.DataFrame(
    {
        "alpha": [f"{a:g}" for a in means["alpha"]],
        "take part": [f"{x:.0%}" for x in means["participation"]],
        "of the data": [f"{x:.0%}" for x in means["samples"]],
        "d, all": [f"{x:.2f}" for x in means["d_all"]],
        "d, stay": [f"{x:.2f}" for x in means["d_stay"]],
        "accuracy": [f"{x:.1%}" for x in means["accuracy"]],
        "against equal costs, percentage points": [
            f"{100 * x:+.1f} +- {100 * h:.1f}" for x, h in zip(lost, lost_half, strict=True)
        ],
    }
)
level = frame.loc[frame["coupling"] == weak, "accuracy"]
skewed, even = alphas[0], alphas[-1]
same = wide["accuracy"][weak].groupby("replication").agg(np.ptp).max()

study.report(f"""\
Costs that follow the data (coupling {strong:g}), mean of {means["n"].min()} runs:

{table(shown)}

- With equal costs all nodes train, and accuracy is {level.mean():.1%} at every alpha (partitions
  differ by at most {100 * same:.2g} percentage points): one full-batch step per round is not
  affected by the skew.
- Costs that follow the data cost {-100 * lost[skewed]:.0f} +- {100 * lost_half[skewed]:.0f}
  percentage points of accuracy at alpha = {skewed:g}, and
  {-100 * lost[even]:.1f} +- {100 * lost_half[even]:.1f} at {even:g}. Without noise the same nodes
  lose {-100 * chosen[skewed]:.0f} percentage points at alpha = {skewed:g}: this part is the missing
  data.
- The market keeps nodes with ordinary data: at alpha = {alphas[1]:g} the nodes that stay are
  {means["d_stay"].iloc[1]:.2f} from the global label shares on average, and all are
  {means["d_all"].iloc[1]:.2f}.
- The server's own utility counts the mean epsilon and sees none of this: by this measure
  coupling adds {gained.min():+.2f} to {gained.max():+.2f} per round.
""")
