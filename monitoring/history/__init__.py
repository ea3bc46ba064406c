"""The past as a table of losses: the model trained before window i, scored on window j.

Replay and backtest play on it.
"""
