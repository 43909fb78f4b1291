"""A market in Mesa's own page: ``solara run app.py`` (needs ``pip install 'fcfn-abm[viz]'``)."""

from mesa.visualization import SolaraViz, make_plot_component

import fcfn_abm as fa


class Market(fa.PrivacyMarket):
    """A market that Mesa's page creates from keywords.

    The page expects one of Mesa's own scenarios under ``scenario`` and rejects others, so this
    class has none.
    """

    scenario = property(lambda _: None, lambda *_: None)


def slider(label, value, low, high, step):
    """Return a slider for a scenario key."""
    kind = "SliderInt" if isinstance(step, int) else "SliderFloat"
    bounds = {"min": low, "max": high, "step": step}
    return {"type": kind, "label": label, "value": value, **bounds}


parameters = {
    "n_nodes": slider("nodes", 50, 2, 200, 1),
    "population.rho.sigma": slider("spread of costs, sd of ln rho", 0.3, 0.0, 1.0, 0.05),
    "alpha": slider("alpha", 10.0, 1.0, 50.0, 1.0),
    "rounds.participation": slider("share of nodes that move", 1.0, 0.1, 1.0, 0.1),
    "learning": {
        "type": "Select",
        "label": "learning rule",
        "value": "best-response",
        "values": ["best-response", "gradient", "fictitious-play", "replicator", "aggregate"],
    },
    "seed": {"type": "SliderInt", "label": "seed", "value": 0, "min": 0, "max": 99, "step": 1},
}

page = SolaraViz(
    Market(),
    components=[
        make_plot_component("total_epsilon", backend="matplotlib"),
        make_plot_component("budget", backend="matplotlib"),
        make_plot_component(
            {"n_active": "#0072B2", "n_inactive": "#8C8C8C", "n_exited": "#D55E00"},
            backend="matplotlib",
        ),
    ],
    model_params=parameters,
    name="A market of privacy in Mesa's page",
)
page  # noqa: B018 - Solara shows what the last line names
