"""A project's history through the same code: replay and backtest."""
