"""The past as a table of losses, on which replay and backtest play: the model trained before window i, scored on window j."""
