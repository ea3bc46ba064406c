"""Features, pipelines and candidates. Shapes a model."""
