"""Epsilon to noise: sensitivity, calibration, accounting; noise and audits use torch."""
