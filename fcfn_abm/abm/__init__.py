"""The Mesa shell: server and node agents, the order of their moves, the market."""

from fcfn_abm.abm.columns import NodeColumns
from fcfn_abm.abm.groups import GroupRules, NodeGroup
from fcfn_abm.abm.market import Market
from fcfn_abm.abm.node import EdgeNode
from fcfn_abm.abm.rules import MarketRules
from fcfn_abm.abm.server import ParameterServer
from fcfn_abm.abm.verdict import Verdict

__all__ = [
    "EdgeNode",
    "GroupRules",
    "Market",
    "MarketRules",
    "NodeColumns",
    "NodeGroup",
    "ParameterServer",
    "Verdict",
]
