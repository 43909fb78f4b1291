"""What the process does: interrupts, progress, worker processes, streams.

Every deliberate trick with signals, streams and the system stands here, with its reason.
"""
