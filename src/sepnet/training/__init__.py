"""Training: a network and a dataset by a recipe into a run."""
