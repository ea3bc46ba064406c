"""Order and decisions: what happens, when, and with how many retries. The only room that imports Prefect."""
