"""A market of privacy in forty lines of Mesa."""

import mesa
from agents import Node, Server

import fcfn_abm as fa


class MinimalMarket(mesa.Model):
    """Nodes respond to each other in random turns until none gains from deviating alone.

    Parameters
    ----------
    n_nodes : int
        Number of nodes.
    spread : float
        Costs are drawn from U(1 - spread, 1 + spread).
    budget : float
        Payment cap of the server.
    rng : int, optional
        Seed.
    """

    def __init__(self, n_nodes=20, spread=0.1, budget=10.0, rng=None):
        super().__init__(rng=rng)
        self.server = Server(self, budget)
        Node.create_agents(self, n_nodes, self.rng.uniform(1 - spread, 1 + spread, n_nodes))
        self.datacollector = mesa.DataCollector(
            model_reporters={
                "total_epsilon": "total_epsilon",
                "n_active": "n_active",
                "exploitability": lambda market: fa.exploitability(
                    market.nodes.get("epsilon"), market.nodes.get("rho"), market.server.budget
                ),
            },
            agenttype_reporters={Node: {"epsilon": "epsilon", "utility": "utility"}},
        )

    @property
    def nodes(self):
        """All nodes."""
        return self.agents_by_type[Node]

    @property
    def total_epsilon(self):
        """The sum of all reports."""
        return self.nodes.agg("epsilon", sum)

    @property
    def n_active(self):
        """Number of nodes with more than a negligible epsilon."""
        return len(self.nodes.select(lambda node: node.epsilon > 1e-6))

    def step(self):
        """Play one round."""
        self.nodes.shuffle_do("respond")
        self.server.pay()
        self.datacollector.collect(self)
