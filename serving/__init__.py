"""Answering: the scoring service. Empty until the service is built."""
