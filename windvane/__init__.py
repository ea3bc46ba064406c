"""Windvane, the one installed name: its rooms are links to the folders beside this one, and stand inside it in a wheel."""
