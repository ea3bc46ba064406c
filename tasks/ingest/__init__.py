"""From source files to one table. Shapes a model."""
