"""Training of folds: from a configuration to weights in a run folder."""
