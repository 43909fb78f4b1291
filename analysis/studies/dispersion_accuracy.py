# %% [markdown]
# # Dispersion and accuracy: fewer nodes, less noise, less data
#
# Forty nodes share the same cap; the more their costs differ, the fewer train, each with a larger
# epsilon. How accurate is the net? The data are scikit-learn's bundled digits, 36 images per node:
# a quick look that does not replace a full study.
#
# The same nodes also train without noise. The loss of accuracy relative to all forty nodes without
# noise is then the sum of two parts: missing data (fewer nodes) and noise.

# %%
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from common import band, begin, number, summary, table

from fcfn_abm.report.theme import ARM_COLOURS, theme

# %%
study = begin("dispersion_accuracy")
frame = study.frame().rename(columns={"population.rho.sigma": "sigma"})


def accuracies(run):
    """Return the accuracy of each training of a run."""
    arms = study.sweep().record(run).run["training"]["arms"]
    return {arm["name"]: arm["accuracy"] for arm in arms}


arms = pd.DataFrame([accuracies(run) for run in frame["run"]])
frame["without noise"] = arms["no-noise"]
frame["lost to noise"] = frame["without noise"] - frame["accuracy"]
measures = ["n_active", "mean_epsilon_total", "accuracy", "without noise", "lost to noise"]
means = summary(frame, "sigma", measures)
means

# %%
with theme():
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.2))
    looks = {"x": "sigma", "errorbar": band, "err_style": "bars", "marker": "o"}
    sns.lineplot(frame, y="n_active", color="#0072B2", label="nodes that train", ax=left, **looks)
    sns.lineplot(
        frame,
        y="mean_epsilon_total",
        color="#E69F00",
        linestyle="--",
        label="mean epsilon of each",
        ax=left,
        **(looks | {"marker": "s"}),
    )
    left.set(title="Fewer nodes, larger epsilon", ylabel="", yscale="log", ylim=(1, 2000))
    left.yaxis.set_major_formatter("{x:g}")
    for column, label, style, shift in (  # shifted, so that bars do not overlap
        ("without noise", "the market's nodes, no noise", ":", 0.96),
        ("accuracy", "with the market's epsilon", "-", 1.04),
    ):
        sns.lineplot(
            frame.assign(sigma=shift * frame["sigma"]),
            y=column,
            color=ARM_COLOURS["no-noise" if style == ":" else "stackelberg"],
            label=label,
            linestyle=style,
            ax=right,
            **looks,
        )
    right.set(title="What the net makes of it", ylabel="test accuracy", ylim=(0, 1))
    right.yaxis.set_major_formatter("{x:.0%}")
    for axes in (left, right):
        axes.set(xscale="log", xlabel="spread of the costs: sd of their logarithm")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.legend(title=None, loc="upper left" if axes is left else "lower left")
    picture = study.save(figure, "dispersion_accuracy")
picture

# %% [markdown]
# ## Findings

# %%
n_nodes = int(frame["n_nodes"].iloc[0])
first, last = means.iloc[0], means.iloc[-1]
best = means.loc[means["accuracy"].idxmax()]
server = frame.groupby("sigma")["server_utility"].mean()


def describe(row, column):
    """Return a mean with its half-interval, in percent."""
    return f"{100 * row[column]:.1f} +- {100 * row[column + '_half']:.1f}"


shown = pd.DataFrame(
    {
        "sd of ln(rho)": [f"{row.sigma:g}" for row in means.itertuples()],
        "nodes that train": [f"{row.n_active:.1f}" for row in means.itertuples()],
        "mean epsilon": [number(row.mean_epsilon_total) for row in means.itertuples()],
        "accuracy, %": [describe(row, "accuracy") for _, row in means.iterrows()],
        "without noise, %": [describe(row, "without noise") for _, row in means.iterrows()],
    }
)
study.report(f"""\
{n_nodes} nodes, {means["n"].min()} populations each, bundled digits; means with 95 % intervals:

{table(shown)}

- Noise: with all nodes nearly alike ({first["n_active"]:.0f} train, epsilon
  {number(first["mean_epsilon_total"])} in the whole training) it costs
  {100 * first["lost to noise"]:.1f} percentage points; with the widest spread
  ({last["n_active"]:.1f} train, epsilon {number(last["mean_epsilon_total"])})
  {100 * last["lost to noise"]:.1f}.
- Data: without noise the net goes from {describe(first, "without noise")} % to
  {describe(last, "without noise")} % as {n_nodes - last["n_active"]:.0f} of {n_nodes} nodes stay
  out.
- Together: {describe(first, "accuracy")} % to {describe(last, "accuracy")} %, at best
  {describe(best, "accuracy")} % at a spread of {best["sigma"]:g}, where {best["n_active"]:.1f}
  nodes train.
- The server's utility {"rises throughout" if server.is_monotonic_increasing else "goes"}, from
  {number(server.iloc[0])} to {number(server.iloc[-1])}: mean epsilon alone does not measure the
  model that it buys.
""")
