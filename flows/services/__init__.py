"""`windvane up`: the processes that it starts and supervises."""
