# %% [markdown]
# # Outliers: high-cost nodes leave, low-cost nodes price out the rest
#
# In a hundred nodes of nearly equal cost, some get lower or higher costs by a factor. What happens
# to the other nodes?
#
# With k low-cost nodes of cost f c among nodes of cost c, an ordinary node is active if (k - 1) c <
# k f c, that is **f > 1 - 1 / k**. A high-cost node of cost f c among m ordinary ones is active if
# **f < m / (m - 1)**. Neither condition depends on the number of nodes in the other group.

# %%
import matplotlib.pyplot as plt
import seaborn as sns
from common import band, begin, format_range, summary, table

from fcfn_abm.report.theme import theme

# %%
study = begin("outliers")
frame = study.frame()

# %%
SHARE, FACTOR = "population.rho.share", "population.rho.factor"
n_nodes = int(frame["n_nodes"].iloc[0])
frame["outliers"] = (frame[SHARE] * n_nodes).round().astype(int)
frame["ordinary"] = n_nodes - frame["outliers"]
measures = ["n_active", "participation", "mean_epsilon", "node_utility", "server_utility"]
means = summary(frame, ["outliers", "ordinary", FACTOR], measures)


def expected_active(row):
    """Return the number of active nodes if costs within each group are equal."""
    factor, k, m = row[FACTOR], row["outliers"], row["ordinary"]
    if factor < 1:
        return n_nodes if factor > 1 - 1 / k else k
    return n_nodes if factor < m / (m - 1) else m


means["expected"] = means.apply(expected_active, axis=1)
means

# %%
with theme():
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.4))
    counts = sorted(frame["outliers"].unique())
    colours = dict(zip(counts, sns.color_palette("viridis", len(counts) + 1), strict=False))
    for axes, column in ((left, "n_active"), (right, "mean_epsilon")):
        sns.lineplot(
            frame,
            x=FACTOR,
            y=column,
            hue="outliers",
            palette=colours,
            marker="o",
            errorbar=band,
            err_style="bars",
            legend=axes is right,
            ax=axes,
        )
        axes.axvline(1, color="0.4", linewidth=0.8)
        axes.set(xscale="log", xlabel="cost of an outlier / cost of the others")
        axes.set_xticks([0.125, 0.25, 0.5, 1, 2, 4, 8], ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
        axes.minorticks_off()
    left.set(title="Participation", ylabel=f"active nodes of {n_nodes}", ylim=(0, None))
    right.set(title="Mean ε", ylabel="mean ε of the active nodes", yscale="log")
    right.legend(title="outliers", loc="upper right")
    picture = study.save(figure, "outliers")
picture

# %% [markdown]
# ## Findings

# %%
clear = means[(means[FACTOR] - 1).abs() > 0.02]  # farther from 1 than the spread within a group
agree = (clear["n_active"] - clear["expected"]).abs() < 1
off = [
    f"{k} at {factor:g}"
    for k, factor in zip(clear.loc[~agree, "outliers"], clear.loc[~agree, FACTOR], strict=True)
]
at = means.set_index(["outliers", FACTOR])
factors = sorted(frame[FACTOR].unique())
cheapest, costliest = factors[0], factors[-1]
tall = means.pivot_table(index=FACTOR, columns="outliers", values="n_active")
tall.columns = [f"{k} outliers" if k > 1 else "1 outlier" for k in tall.columns]
tall = tall.reset_index().rename(columns={FACTOR: "factor"})


def cheap_sentence(k):
    """Describe the factor from which only the k low-cost nodes are active."""
    alone = [f for f in factors if f < 1 and at.loc[(k, f), "n_active"] < k + 1]
    return f"{k} at {max(alone):g} times the cost ({n_nodes - k} leave)" if alone else ""


cheap = "; ".join(filter(None, map(cheap_sentence, counts)))
alone = (
    f" A single low-cost node has no such effect: with one at {cheapest:g} "
    f"times the cost {at.loc[(1, cheapest), 'n_active']:.0f} nodes stay."
    if 1 in counts
    else ""
)
costly_left = n_nodes - at.xs(costliest, level=FACTOR)["n_active"]
mean_epsilon = format_range(means["mean_epsilon"])
study.report(f"""\
Active nodes of {n_nodes}, mean of {means["n"].min()} populations:

{table(tall, {"factor": "g", **dict.fromkeys(tall.columns[1:], ".0f")})}

- High-cost outliers leave, without an effect on the other nodes: at {
    costliest:g} times the cost the market is smaller
  by {", ".join(f"{gone:.0f}" for gone in costly_left)} nodes with {
    ", ".join(map(str, counts))
} of them.
- Low-cost outliers stay, and all other nodes leave. The smallest difference in the table with
  this effect:
  {cheap}.{alone}
- f > 1 - 1 / k for the ordinary nodes, and f < m / (m - 1) for the high-cost ones, give the
  active set
  to within one node at {agree.sum()} of {len(agree)} points{
    f" (not: {', '.join(off)})" if off else ""
},
  points within 2 % of 1 left out.
- Mean epsilon of an active node goes from {mean_epsilon}: the remaining nodes share
  the whole cap.
""")
