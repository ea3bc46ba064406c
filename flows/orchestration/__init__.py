"""Prefect: its server and database, deployments, scheduled flows, and laps that a stop left unfinished."""
