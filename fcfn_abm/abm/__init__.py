"""The Mesa shell: server and node agents, the order of their moves, the market."""
