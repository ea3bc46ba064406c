"""Work: plain functions, one step a file. Knows nothing of Prefect; never decides what happens next."""
