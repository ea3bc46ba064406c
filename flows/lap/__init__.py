"""The steps of a lap: their context, data, model, gate and records."""
