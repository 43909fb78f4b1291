# %% [markdown]
# # Closed loop: the cost of learning the value of epsilon while buying it
#
# A learning server starts from alpha = beta = 10, as in the paper's figures, and refits both to
# the gains of its own rounds of training. Another server gets the values that `fcfn calibrate`
# measured on these digits, and keeps them. Nodes, data and seeds are the same. Where does the loop
# settle, how fast, and at what cost?
#
# The true value of epsilon to a net is unknown. Both servers are judged by one fit to the rounds
# of all runs with the same data partition and mechanism. The loop is also played with simulated
# training, whose value is known, so that regrets are exact; a bandit is included there.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from common import SCENARIOS, begin, half_interval, number, table

import fcfn_abm as fa
from fcfn_abm.build.load import set_keys
from fcfn_abm.learning.value import ValueEstimate, ValuePrior
from fcfn_abm.report.theme import theme
from fcfn_abm.runs.simulated import TrueValue, simulate_loop

LATE = 10  # number of last rounds
NEAR = 0.1  # relative distance to its late mean within which a cap has settled

# %%
study = begin("closed_loop")
sweep = study.sweep()
frame = study.frame()
frame["data"] = np.where(frame["training.partition.dirichlet_alpha"] > 1, "nearly alike", "skewed")
frame["costs"] = frame["population.rho"].map(
    lambda rho: "outliers" if "outliers" in str(rho) else "uniform"
)
frame["server"] = np.where(frame["value.frozen"], "knows", "learns")
parts = []
for row in frame.to_dict("records"):
    record = sweep.record(row["run"])
    keys = ("run", "data", "costs", "mechanism", "replication", "server")
    accuracy = record.training["accuracy"].to_numpy()
    n_rounds = len(accuracy) - 1  # a market that ends earlier keeps its last round
    part = record.rounds.set_index("round").reindex(range(1, n_rounds + 1)).ffill().reset_index()
    stock = accuracy - accuracy[0]
    part = part.assign(accuracy=accuracy[1:], gain=np.diff(accuracy), stock=stock[:-1])
    parts.append(part.assign(**{name: row[name] for name in keys}))
rounds = pd.concat(parts, ignore_index=True)
rounds["planned"] = rounds["budget"] / rounds["exploration"]
price = sweep.scenario.value.price

# %% [markdown]
# ## One fit to all rounds
#
# All rounds of all runs with the same data partition and mechanism judge both servers. (A mean
# epsilon of 2 shared by all nodes has more value for the net than one sold by a few of them.)

# %%
pooled = {}
for place, part in rounds[rounds["gain"].notna()].groupby(["data", "mechanism"]):
    prior = ValuePrior(1.0, 0.03, spread=2.0, noise=0.03)
    pooled[place] = ValueEstimate(part["mean_epsilon"], part["stock"], part["gain"], prior)


def judge(part):
    """Return the results of a run under the fit to all rounds."""
    fit = pooled[part["data"].iloc[0], part["mechanism"].iloc[0]]
    late = part.tail(LATE)
    bought = late["mean_epsilon"].sum() / late["payment"].sum()  # epsilon per unit of money
    best = max(0.0, price * fit.beta - 1 / (fit.alpha * bought))
    most = price * fit(bought * best) - best
    left = price * fit(part["mean_epsilon"]) - part["payment"]
    end = late["planned"].mean()
    away = np.flatnonzero((part["planned"] / end - 1).abs() > NEAR)
    return {
        "cap": end,
        "cap / best": end / best,
        "settled": (away[-1] + 2 if away.size else 1),
        "epsilon": late["mean_epsilon"].mean(),
        "accuracy": late["accuracy"].mean(),
        "paid": part["payment"].sum(),
        "regret": 1 - left.sum() / (len(part) * most),
        "spent": part["epsilon_spent"].iloc[-1],
    }


keys = ["data", "costs", "mechanism", "replication", "server"]
groups = rounds.groupby(keys, sort=False)
runs = pd.DataFrame([dict(zip(keys, place, strict=True)) | judge(part) for place, part in groups])
wide = runs.pivot_table(
    ["regret", "accuracy"], index=["data", "costs", "mechanism", "replication"], columns="server"
)
ends = runs.groupby(["data", "mechanism", "server"], sort=False).mean(numeric_only=True)

# %%
with theme():
    figure, panels = plt.subplots(2, 4, figsize=(15, 6.4), sharex=True)
    places = [
        (data, kind) for data in rounds["data"].unique() for kind in rounds["mechanism"].unique()
    ]
    colours = {"learns": "#D55E00", "knows": "#0072B2"}
    for column, (data, kind) in zip(panels.T, places, strict=False):
        part = rounds[(rounds["data"] == data) & (rounds["mechanism"] == kind)]
        for axes, name in zip(column, ("planned", "accuracy"), strict=True):
            sns.lineplot(
                part,
                x="round",
                y=name,
                hue="server",
                palette=colours,
                errorbar=("pi", 100),
                ax=axes,
                legend=name == "planned",
            )
            axes.set(ylim=(0, None), ylabel={"planned": "cap B", "accuracy": "test accuracy"}[name])
        column[0].set_title(f"{data}, {kind}")
study.save(figure, "closed_loop_rounds")

# %% [markdown]
# ## Simulated training with a known value

# %%
n_seeds = 3 * frame["replication"].nunique()
TRUE_ALPHA, TRUE_BETA, DEPRECIATION = 1.6, 0.025, 0.06
NOISES = (0.01, 0.03, 0.09)
KNOWN = {"game.alpha": TRUE_ALPHA, "game.beta": TRUE_BETA * price}
SERVERS = {
    "knows": {"value.frozen": True},
    **{
        f"learns, prior beta x {factor:g}": {
            "value.prior_alpha": TRUE_ALPHA,
            "value.prior_beta": factor * TRUE_BETA * price,
        }
        for factor in (0.3, 1.0, 3.0)
    },
    "bandit": {"server": {"kind": "bandit", "longest_trial": 2, "confidence": 1.0}},
}
whole = fa.load_scenario(SCENARIOS / "closed_loop.toml", study.overrides)
whole = whole.model_copy(update={"sweep": None})
found = []
for server, settings in SERVERS.items():
    for seed in range(n_seeds):
        scenario = set_keys(whole, {**KNOWN, **settings, "seed": seed}, "the study")
        for noise in NOISES:
            truth = TrueValue(TRUE_ALPHA, TRUE_BETA, DEPRECIATION, noise)
            run = simulate_loop(scenario, truth)
            late = (run.rounds["budget"] / run.rounds["exploration"]).tail(LATE).mean()
            found.append(
                {
                    "server": server,
                    "noise": noise,
                    "seed": seed,
                    "regret": run.regret.regret / run.regret.best_server_value,
                    "cap / best": late / run.regret.best_cap,
                }
            )
simulated = pd.DataFrame(found)

# %%
with theme():
    figure, panels = plt.subplots(1, 2, figsize=(13, 4.4))
    for axes, name, label in zip(
        panels,
        ("regret", "cap / best"),
        ("regret, share of the best server's value", "late cap over the best one"),
        strict=True,
    ):
        sns.stripplot(
            simulated,
            x="noise",
            y=name,
            hue="server",
            dodge=True,
            size=3.5,
            ax=axes,
            legend=name == "regret",
        )
        axes.set(xlabel="noise of a round's gain (standard deviation)", ylabel=label)
    panels[1].axhline(1, color="0.3", linewidth=0.8)
    panels[0].legend(loc="upper left", fontsize="small")
study.save(figure, "closed_loop_simulated")

# %% [markdown]
# ## Findings


# %%
def difference(name):
    """Return the paired difference between learning and knowing, in percentage points."""
    pairs = wide[name]["learns"] - wide[name]["knows"]
    return f"{100 * pairs.mean():+.2g} +- {100 * half_interval(pairs):.2g}"


rows = []
for place, row in ends.iterrows():
    rows.append(
        {
            **dict(zip(("data", "mechanism", "server"), place, strict=True)),
            "cap": number(row["cap"]),
            "cap / best": f"{row['cap / best']:.2f}",
            "settled in round": f"{row['settled']:.0f}",
            "epsilon": f"{row['epsilon']:.2f}",
            "accuracy": f"{row['accuracy']:.1%}",
            "paid": number(row["paid"]),
            "regret": f"{row['regret']:.0%}",
        }
    )


def describe(place, fit):
    """Describe the fit to all rounds."""
    (alpha_low, alpha_high), (low, high) = fit.alpha_interval(), fit.beta_interval()
    return (
        f"{', '.join(place)}: alpha {fit.alpha:.2g} ({alpha_low:.2g} to {alpha_high:.2g}), beta "
        f"{price * fit.beta:.3g} ({price * low:.3g} to {price * high:.3g}), "
        f"{fit.depreciation:.1%} of the stock lost a round, misfit {price * fit.misfit:.2g}"
    )


fits = "; ".join(describe(place, fit) for place, fit in pooled.items())
learns = runs[runs["server"] == "learns"]
simulated["stuck"] = simulated["cap / best"] < 0.5
means = simulated.pivot_table(["regret", "stuck"], index="server", columns="noise")
known_rows = [
    {
        "server": server,
        **{
            f"{name}, noise {noise:g}": f"{means.loc[server, (name, noise)]:.0%}"
            for name in ("regret", "stuck")
            for noise in NOISES
        },
    }
    for server in SERVERS
]
settled, ratio = learns["settled"], learns["cap / best"]
study.report(f"""\
- {len(runs)} runs of {int(rounds["round"].max())} rounds; means over two distributions of costs
  and {runs["replication"].nunique()} seeds. Regret: what the best constant cap would have left the
  server, less what its own left it, as a share, by the fit to all rounds ({fits}).

{table(pd.DataFrame(rows))}

- The cap of the server that learns stays within {NEAR:.0%} of its mean over the last {LATE} rounds
  from round {settled.median():.0f} on (median of {len(learns)} runs; {settled.min():.0f} to
  {settled.max():.0f}), at {ratio.min():.2f} to {ratio.max():.2f} times the best cap.
- Learning less knowing, paired over {len(wide)} games: {difference("regret")} percentage
  points of regret, {difference("accuracy")} of accuracy in the last {LATE} rounds (95 % intervals).
- With a simulated training of known value (alpha = {TRUE_ALPHA}, beta = {TRUE_BETA * price:g},
  {DEPRECIATION:.0%} of the stock lost a round), {n_seeds} seeds; "stuck" are runs whose late cap is
  below half of the best one:

{table(pd.DataFrame(known_rows))}
""")
