"""The checks of a table, a file per family."""
