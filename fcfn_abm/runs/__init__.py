"""Carrying it out: runs, progress."""

from fcfn_abm.runs.run import run_scenario

__all__ = ["run_scenario"]
