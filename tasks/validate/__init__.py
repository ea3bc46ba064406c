"""Is the table fit to train on? Schema, statistics, findings. Shapes a model."""
