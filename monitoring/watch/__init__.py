"""A monitoring pass: production's rows, windows, checks, probation, report."""
