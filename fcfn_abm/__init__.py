"""Agent-based simulation of incentive mechanisms for private federated learning."""

__version__ = "0.1.0"
