"""The two kinds of agents: a server that pays, and nodes that respond."""

import mesa

import fcfn_abm as fa


class Server(mesa.Agent):
    """Announces a payment cap once, and shares it in proportion to epsilon."""

    def __init__(self, model, budget):
        super().__init__(model)
        self.budget = budget

    def pay(self):
        """Pay every node."""
        nodes = self.model.nodes
        shares = fa.payments(nodes.get("epsilon"), self.budget)
        for node, share in zip(nodes, shares, strict=True):
            node.payment = share


class Node(mesa.Agent):
    """Gives up epsilon for money; moves half of the way to its best response."""

    def __init__(self, model, rho):
        super().__init__(model)
        self.rho = rho
        self.epsilon = 0.1
        self.payment = 0.0

    @property
    def utility(self):
        """Payment minus privacy cost."""
        return self.payment - self.rho * self.epsilon

    def respond(self):
        """Move in response to the others' reports."""
        others = self.model.total_epsilon - self.epsilon
        best = fa.best_response(self.rho, others, self.model.server.budget)
        self.epsilon += 0.5 * (best - self.epsilon)
