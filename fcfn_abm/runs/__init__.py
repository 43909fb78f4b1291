"""Runs, sweeps, comparisons and audits. Import the modules: some load Mesa, others do not."""
