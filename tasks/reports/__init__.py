"""Pages and pictures of data. Shapes no model."""
