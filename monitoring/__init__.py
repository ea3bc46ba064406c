"""Watching production: windows, drift, quality, diagnosis, decision, report."""
