"""Interactive page: ``solara run app.py`` (needs ``pip install 'fcfn-abm[viz]'``)."""

from mesa.visualization import SolaraViz, make_plot_component
from model import MinimalMarket

parameters = {
    "n_nodes": {
        "type": "SliderInt",
        "value": 20,
        "label": "nodes",
        "min": 2,
        "max": 100,
        "step": 1,
    },
    "spread": {
        "type": "SliderFloat",
        "value": 0.1,
        "label": "spread of costs",
        "min": 0.0,
        "max": 0.9,
        "step": 0.05,
    },
    "budget": {
        "type": "SliderFloat",
        "value": 10.0,
        "label": "payment cap",
        "min": 1.0,
        "max": 100.0,
        "step": 1.0,
    },
}

page = SolaraViz(
    MinimalMarket(),
    components=[
        make_plot_component("total_epsilon"),
        make_plot_component("n_active"),
        make_plot_component("exploitability"),
    ],
    model_params=parameters,
    name="A minimal market of privacy",
)
page  # noqa: B018 - Solara shows what the last line names
