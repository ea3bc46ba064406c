"""Doors to DVC and MLflow, and the fingerprint of a version."""
