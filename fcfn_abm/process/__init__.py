"""The process: interrupts, progress, workers, standard streams, and atomic writing of folders.

All workarounds for signals, streams and the operating system are here, with their reasons.
"""
