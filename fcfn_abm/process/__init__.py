"""What the process does: interrupts, progress, workers, standard streams, folders that take names.

Every trick with signals, streams and the system stands here, with its reason.
"""
