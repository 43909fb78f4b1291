"""Carrying it out: runs, progress."""
