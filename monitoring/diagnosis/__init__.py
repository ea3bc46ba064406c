"""What changed, where, and since when."""
