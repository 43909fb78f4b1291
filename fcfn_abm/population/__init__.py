"""Who plays: laws of the unit privacy cost."""
