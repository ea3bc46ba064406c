"""How good a model is: scores, intervals, curves, plots. Shapes no model."""
