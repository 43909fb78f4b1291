"""The same market in plain Mesa, in the style of its documentation, as a baseline."""

from math import sqrt

import mesa


class PlainNode(mesa.Agent):
    """A node that goes half of the way to its best response, cautiously."""

    def __init__(self, model, rho, epsilon):
        super().__init__(model)
        self.rho = rho
        self.epsilon = epsilon
        self.caution = 1.0
        self.idle_rounds = 0
        self.exited = False

    def respond(self):
        """See the running total and move; exit after three idle rounds, re-enter if it pays off."""
        model, own, rho = self.model, self.epsilon, self.rho
        others = max(model.total_epsilon - own, 0.0)
        surplus = model.budget - rho * others
        if others > 0 and surplus > 0:
            root = model.root_budget / sqrt(rho) * sqrt(others)
            best = root * (surplus / model.budget) / (1.0 + others / root)
        else:
            best = 0.0
        if self.exited:
            if best <= 0:
                return
            self.exited = False
        self.idle_rounds = 0 if best > 0 else self.idle_rounds + 1
        steepness = 4.0 * rho * others
        now = sqrt(steepness / model.budget) if 0.0 < steepness < model.budget else 1.0
        self.caution = min(now, 1.5 * self.caution)
        self.epsilon = own + 0.5 * (best - own) * self.caution
        model.total_epsilon = others + self.epsilon


class PlainMarket(mesa.Model):
    """Nodes in random turns, one round per step."""

    def __init__(self, rho, epsilon, budget):
        super().__init__(rng=1)
        self.budget, self.root_budget = budget, sqrt(budget)
        PlainNode.create_agents(self, len(rho), rho.tolist(), epsilon.tolist())
        self.total_epsilon = float(epsilon.sum())

    def step(self):
        """Play one round."""
        self.agents.shuffle_do("respond")
        for node in self.agents:
            if node.idle_rounds >= 3 and not node.exited:
                node.exited = True
                self.total_epsilon -= node.epsilon
                node.epsilon = 0.0
