"""The report page of a window: what changed and what was decided, then the evidence, and Evidently's report in a frame."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windvane.monitoring.records import ESTIMATE_BLIND_SPOT, DriftFinding, PerformanceResult, WindowAssessment
from windvane.monitoring.window_frames import name_record_column
from windvane.tasks.io import write_whole
from windvane.templates import render_page

_ACTION_LEVELS = {"wait": "pass", "retrain": "warn", "rollback": "stop", "stop": "stop"}
_ACTION_TEXTS = {
    "wait": "No retraining",
    "retrain": "The model is retrained",
    "rollback": "The previous version serves again",
    "stop": "No training until a person has checked the data",
}
# Findings shown: all alarms, and then so many of the others, the largest first.
_MAX_QUIET_FINDINGS = 12


@dataclass(frozen=True)
class WindowLoss:
    """A window's loss as a bar: where it starts, its share of the tallest bar, style classes, and a title in words."""

    start: str
    share: float
    classes: str
    title: str


def write_window_report(path: Path, page: str) -> None:
    """Write the page of a monitoring check, whole or not at all."""
    write_whole(path, lambda part: part.write_text(page, encoding="utf-8"))


def render_window_report(
    check: WindowAssessment,
    decision: Any,
    project: str,
    origin: str,
    left_out: Sequence[str] = (),
    earlier: Sequence[WindowAssessment] = (),
    evidently: Path | None = None,
) -> str:
    """The page of a monitoring check and its decision (ledger.decisions.DecisionRecord, or None), as text.

    earlier: the champion's windows before, for the picture of its loss. evidently: where keep_evidently_report() put the report, if it did.
    """
    level = "pass" if decision is None else _ACTION_LEVELS[decision.action]
    narrow = check.coverage is not None and check.coverage.alarm
    if level == "pass" and (check.drift.alarm is not False or check.drift.unknown or narrow):
        level = "warn"
    s, (losses, line) = check.stretch, _render_losses((*earlier, check))
    alarms = [f for f in check.drift.findings if f.alarm]
    findings = alarms + [f for f in check.drift.findings if not f.alarm][:_MAX_QUIET_FINDINGS]
    return render_page(
        "monitoring_check.html",
        project=project,
        version=check.version,
        level=level,
        stretch=f"{s.start[:10]} to {s.end[:10]}{'' if s.closed else ' (still open)'}",
        changed=describe_change(check, earlier),
        decided=describe_decision(decision),
        facts=_render_facts(check, decision),
        losses=losses,
        line=line,
        findings=findings,
        alarms=len(alarms),
        compared=len(check.drift.findings),
        scale=max([1.5, *map(_compute_ratio, findings)]),
        named=name_record_column,
        times=_compute_ratio,
        notes=_render_notes(check, origin, left_out),
        evidently=gzip.decompress(evidently.read_bytes()).decode() if evidently and evidently.exists() else None,
    )


def describe_change(check: WindowAssessment, earlier: Sequence[WindowAssessment] = ()) -> str:
    """The first sentence: what changed, and since when: the first window of the unbroken row in which something had."""
    drift, diagnosis, since = check.drift, check.diagnosis, check.stretch.start[:10]
    if drift.unknown and (drift.alarm is None or diagnosis.change == "none"):
        return f"{_capitalize(drift.unknown).rstrip('.')}."
    if drift.statistic is None and not drift.alarm:
        return f"Too few rows since {since} to detect a change."
    if not drift.alarm and diagnosis.change == "none":
        return f"No change found in {drift.rows:,} rows since {since}."
    for one in reversed(earlier):
        if not one.changed:
            break
        since = one.stretch.start[:10]
    if diagnosis.change == "none":
        loud = [f"{name_record_column(f.column)}: {f.said}" for f in drift.findings if f.alarm][:2]
        return f"Drift since {since}: {'; '.join(loud)}."
    names = ", ".join(name_record_column(name) for name in (drift.columns or diagnosis.columns)[:3])
    what, where = _capitalize(diagnosis.change), f", in {names}" if names else ""
    return f"{what} ({diagnosis.sure:.0%} sure) since {since}{where}: {diagnosis.why.rstrip('.')}."


def describe_decision(decision: Any) -> str:
    """The second sentence: what was decided, and why."""
    if decision is None:
        return "No decision yet."
    known = f" Labels were known up to {decision.known_until[:16]}Z." if decision.known_until else ""
    return f"{_ACTION_TEXTS[decision.action]}: {decision.reason.rstrip('.')}.{known}"


def _render_facts(check: WindowAssessment, decision: Any) -> list[tuple[str, str]]:
    s, drift = check.stretch, check.drift
    cards = [(f"{s.rows:,} rows", f"{s.labelled_text} of them with a label")]
    if drift.alarm is None:
        cards.append(("cannot tell", "drift: the report failed"))
    if drift.statistic is not None:
        chance = f"p {drift.p:.2g}" if drift.p is not None else "no p"
        cards.append(("alarm" if drift.alarm else "no alarm", f"drift: {chance}; false alarm rate {drift.level:.2g}"))
    quality = check.performance
    if quality is not None and quality.excess is not None:
        cards.append(_describe_performance(quality, quality.excess))
    if (found := check.coverage) is not None and found.share is not None:
        small = f"of {found.rows:,} labels within their interval, {found.level * 100:g} % were promised"
        cards.append((f"{found.share:.1%}", small + ("; alarm: too narrow" if found.alarm else "")))
    if decision is not None and decision.gain is not None and decision.cost is not None:
        small = f"expected gain of retraining, in mean losses of a window; a lap costs {decision.cost:g}"
        if decision.realised is not None:
            small += f"; measured gain {decision.realised:+.2f}"
        cards.append((f"{decision.gain:+.2f}", small))
    return cards


def _describe_performance(quality: PerformanceResult, excess: float) -> tuple[str, str]:
    share = excess / quality.reference if quality.reference else 0.0
    bounds = ""
    if quality.low is not None and quality.high is not None and quality.reference:
        bounds = f", 95 % interval {quality.low / quality.reference:+.0%} to {quality.high / quality.reference:+.0%}"
    how = "compared with its own held-out rows"
    if quality.estimated:
        how = f"estimated without labels: {ESTIMATE_BLIND_SPOT}"
    return f"{share:+.1%} loss", f"{how}{bounds}"


def _render_losses(assessments: Sequence[WindowAssessment]) -> tuple[list[WindowLoss], float]:
    """Mean loss per window against the champion's own record, and where 1 lies, as shares of the tallest; none for one window."""
    shown = [
        (check.stretch.start[:10], q, q.loss / q.reference)
        for check in assessments
        if (q := check.performance) is not None and q.loss is not None and q.reference > 0
    ]
    if len(shown) < 2:
        return [], 0.0
    top = max(1.2, *(times for _, _, times in shown))
    bars = [
        WindowLoss(
            start,
            times / top,
            " ".join(name for name, on in (("over", times > 1), ("estimated", quality.estimated)) if on),
            f"{start}: {times:.2f} times its own record{', estimated' if quality.estimated else ''}",
        )
        for start, quality, times in shown
    ]
    return bars, 1 / top


def _compute_ratio(finding: DriftFinding) -> float:
    return min(max(finding.distance / finding.limit, 0.0), 99.0) if finding.limit > 0 else 99.0 * finding.alarm


def keep_evidently_report(path: Path, content: str | None) -> None:
    """Keep Evidently's report (HTML), whole or not at all; None: delete an older one."""
    if content is None:
        path.unlink(missing_ok=True)
        return
    packed = gzip.compress(content.encode("utf-8", "replace"), mtime=0)
    write_whole(path, lambda part: part.write_bytes(packed))


def _capitalize(text: str) -> str:
    """With a capital first letter; the others stay."""
    return text[:1].upper() + text[1:]


def _render_notes(check: WindowAssessment, origin: str, left_out: Sequence[str]) -> list[str]:
    rows = "predictions in the ledger" if origin == "ledger" else "the source's rows, as the champion predicts them now"
    notes = [f"Rows: {rows}. Reference: {check.drift.reference_rows:,} held-out rows of version {check.version}."]
    notes += [text for text in (check.drift.note, check.drift.undecided) if text]
    notes += [f"Quality: {check.quality.how}."]
    if check.estimate is not None:
        notes.append(f"Estimate: {check.estimate.how}.")
    if check.coverage is not None:
        notes.append(f"Intervals: {check.coverage.text}.")
    if left_out:
        notes.append(f"Not compared, because the ledger drops or hashes them: {', '.join(left_out)}.")
    return [_capitalize(note) for note in notes]
