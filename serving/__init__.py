"""Serving: the scoring service."""
