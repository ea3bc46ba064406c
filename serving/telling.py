"""What GET /model says: which version serves, since when, how it was judged, what it may be asked. Reads, decides nothing."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from windvane.serving.following import Following, Lineup, Serving


def told(following: Following) -> dict[str, Any]:
    """Plain values. `refused`: the champion that could not be loaded here, while the version before goes on."""
    current = following.current
    content: dict[str, Any] = {"version": None} if current is None else _serving(current)
    return {
        **content,
        "challenger": _challenger(following.lineup),
        "refused": None if following.refusal is None else asdict(following.refusal),
        "ledger": following.unreachable or "answers",
    }


def _serving(current: Serving) -> dict[str, Any]:
    version, signature = current.loaded.version, current.loaded.signature
    summary = version.facts.get("summary", {})
    return {
        "version": version.version,
        "data_version": version.data_version,
        "taught_until": version.taught_until,
        "run_id": version.run_id,
        "promoted": current.promoted,
        "cause": current.cause,
        "since": current.since,
        "kind": version.facts["kind"],
        "target": version.facts["target"],
        "candidate": summary.get("chosen"),
        "metric": version.facts["metric"],
        "test": summary.get("test"),
        "interval": summary.get("interval"),
        "engine": {"form": current.loaded.engine.form, "why": current.loaded.why},
        "memory": version.facts.get("memory"),
        "signature": {
            "inputs": [asdict(column) for column in signature.inputs],
            "classes": signature.classes,
        },
    }


def _challenger(lineup: Lineup | None) -> dict[str, Any] | None:
    """The version that is being rolled out, how it does beside the champion, and until when."""
    if lineup is None or lineup.challenger is None:
        return None
    champion, challenger = lineup.trial.counts()
    return {
        "version": lineup.challenger.number,
        "role": lineup.role,
        "share": lineup.share,
        "until": lineup.until,
        "engine": lineup.challenger.loaded.engine.form,
        "counts": {"champion": asdict(champion), "challenger": asdict(challenger)},
    }
