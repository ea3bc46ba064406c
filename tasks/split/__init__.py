"""Train, validation and test rows. Shapes a model."""
