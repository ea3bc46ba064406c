"""Has the distribution of a window changed? Distances, their calibrated limits, and Evidently."""
