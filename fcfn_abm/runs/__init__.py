"""Carrying it out: runs, progress. Import the modules: some load Mesa, and not all need it."""
