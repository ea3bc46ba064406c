"""Whether a Prefect server that runs elsewhere lets this machine in: its /health answers everybody."""

from __future__ import annotations

from windvane.tasks.errors import InputError, Outage


def ask(url: str) -> None:
    """Ask something that needs credentials, as a lap will, with those that Prefect itself finds. Raises InputError, Outage."""
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    try:
        with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
            client.read_flow_runs(limit=1)
    except httpx.HTTPStatusError as e:
        if e.response.status_code in (401, 403):
            raise InputError(
                f"PREFECT_API_URL: the Prefect server at {url} does not let this machine in ({e.response.status_code}). Set "
                "PREFECT_API_AUTH_STRING (for Prefect Cloud PREFECT_API_KEY) to what it asks for"
            ) from None
        raise Outage(
            f"PREFECT_API_URL: {url} answers {e.response.status_code}. Is it a Prefect API? Its address ends in /api"
        ) from e
    except ValueError as e:  # no JSON, or another's
        raise Outage(
            f"PREFECT_API_URL: what answers at {url} is no Prefect API. Correct the address: it ends in /api"
        ) from e
    except httpx.HTTPError as e:
        raise Outage(
            f"PREFECT_API_URL: the Prefect server at {url} does not answer ({e}). Start it, or correct the address"
        ) from e
