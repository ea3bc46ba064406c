"""Whether to wait, refit or search again, and what waiting has cost."""
