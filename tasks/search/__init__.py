"""The search over candidates and their settings. Shapes a model."""
