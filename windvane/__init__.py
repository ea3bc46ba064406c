"""Windvane, the one installed name: its rooms are links to the folders beside this one, and are inside it in a wheel."""
