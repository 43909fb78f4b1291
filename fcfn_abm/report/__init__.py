"""What it means: summaries and figures, from records alone."""
