"""Remembering: leases, laps, test openings, versions, judgements and promotions, in SQLite or PostgreSQL."""
