"""Readers of sources that are not one local file, one kind a file. What to read of them is decided in tasks/fetch.py."""
