"""What is run: the scenario tree and its files."""
