"""The past as a table of losses: model taught before window i, scored on window j. What replay and backtest play on."""
