"""Watching production: windows, drift, quality, diagnosis. Empty until the watch is built."""
