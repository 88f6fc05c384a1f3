"""From trained weights to figures: predictions, metrics, trust, the summary of a run."""
