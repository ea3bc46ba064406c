"""Order and decisions: what happens, when, and with how many retries. The only package that imports Prefect."""
