"""Campaigns that break things on purpose: ``make soak`` runs them long, the tests run them short.

Each campaign counts what it did and raises AssertionError at the first promise that is broken:
never a half record under a final name, never a wrong result, always a clear sentence.
"""
