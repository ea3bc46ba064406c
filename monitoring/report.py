"""The page of a look: two sentences first, then what speaks for them. Self-contained HTML; measures nothing.

Evidently's report, from which the alarm was read, is part of it: our page comes first.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from windvane.monitoring.evidence import Finding, Look, Quality
from windvane.monitoring.wording import shown_name
from windvane.tasks.report_style import CSS
from windvane.tasks.tables import write_whole

_LEVELS = {"wait": "pass", "retrain": "warn", "rollback": "stop", "stop": "stop"}
_DONE = {
    "wait": "Nothing is taught again",
    "retrain": "The model is taught again",
    "rollback": "The version before serves again",
    "stop": "Nothing is taught until a person has looked",
}
# Findings shown: those that speak, and then the loudest of the rest.
_QUIET = 12
_WIDTH, _HEIGHT = 1040, 130
_MORE = """
.meter { min-width:220px } .meter em { width:96px } .loss { width:100%; height:auto } .loss rect { fill:var(--now); opacity:.8 }
.loss rect.over { fill:var(--then) } .loss rect.here { opacity:1 } .loss rect.guess { opacity:.35 }
.loss line { stroke:var(--ink); stroke-width:1.2; stroke-dasharray:5 4 } .loss text { font-size:11px; fill:var(--soft) }
.facts { display:grid; grid-template-columns:repeat(auto-fit,minmax(200px,1fr)); gap:14px; margin-top:18px }

.evidently { width:100%; height:92vh; border:1px solid var(--faint); border-radius:8px; background:#fff }
.facts .card b { display:block; font-size:20px; font-weight:600; letter-spacing:-.01em }
.facts .card span { color:var(--soft); font-size:13px }
"""


def write(
    path: Path,
    look: Look,
    decision: Any,
    project: str,
    origin: str,
    left_out: Sequence[str] = (),
    earlier: Sequence[Look] = (),
    evidently: Path | None = None,
) -> None:
    """Write the page of a look and its decision (ledger.decisions.Entry, or None), whole or not at all.

    earlier: the champion's windows before, for the picture of its loss. evidently: where keep() put the report, if it did.
    """
    text = page(look, decision, project, origin, left_out, earlier, evidently)
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def page(
    look: Look,
    decision: Any,
    project: str,
    origin: str,
    left_out: Sequence[str] = (),
    earlier: Sequence[Look] = (),
    evidently: Path | None = None,
) -> str:
    """The page as text; see write()."""
    level = "pass" if decision is None else _LEVELS[decision.action]
    if level == "pass" and look.drift.alarm is not False:
        level = "warn"
    parts = [
        f'<header class="{level}"><h1>{escape(project)}: version {look.version} in production, {_stretch(look)}</h1>',
        f'<p class="verdict">{escape(changed(look, earlier))}</p>',
        f'<p class="verdict">{escape(decided(decision))}</p></header>',
        f'<div class="facts">{_facts(look, decision)}</div>',
        _losses((*earlier, look)),
        _findings(look),
        _notes(look, origin, left_out),
        _report(evidently),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(project)}: watch</title>'
    body = f"<main>{''.join(parts)}<footer>Windvane</footer></main>"
    return f'<!doctype html><html lang="en"><head>{head}<style>{CSS}{_MORE}</style></head><body>{body}</body></html>'


def changed(look: Look, earlier: Sequence[Look] = ()) -> str:
    """The first sentence: what changed, and since when: the first of the windows in a row in which something had."""
    drift, diagnosis, since = look.drift, look.diagnosis, look.stretch.start[:10]
    if drift.alarm is None:
        return f"{_capital(str(drift.note)).rstrip('.')}."
    if drift.statistic is None and not drift.alarm:
        return f"Too few rows to say whether anything changed since {since}."
    if not drift.alarm and diagnosis.change == "none":
        return f"Nothing has changed that {drift.rows:,} rows since {since} could show."
    for one in reversed(earlier):
        if not one.drift.alarm and one.diagnosis.change == "none":
            break
        since = one.stretch.start[:10]
    if diagnosis.change == "none":
        loud = [f"{shown_name(f.column)}: {f.said}" for f in drift.findings if f.alarm][:2]
        return f"Drift since {since}: {'; '.join(loud)}."
    names = ", ".join(shown_name(name) for name in (drift.columns or diagnosis.columns)[:3])
    what = diagnosis.change[:1].upper() + diagnosis.change[1:]
    return f"{what} ({diagnosis.sure:.0%} sure) since {since}{f', in {names}' if names else ''}: {diagnosis.why.rstrip('.')}."


def decided(decision: Any) -> str:
    """The second sentence: what was decided, and why."""
    if decision is None:
        return "Nothing has been decided yet."
    known = f" Labels were known up to {decision.known_until[:16]}Z." if decision.known_until else ""
    return f"{_DONE[decision.action]}: {decision.reason.rstrip('.')}.{known}"


def _stretch(look: Look) -> str:
    s = look.stretch
    return f"{s.start[:10]} to {s.end[:10]}{'' if s.closed else ' (not over yet)'}"


def _facts(look: Look, decision: Any) -> str:
    s, drift = look.stretch, look.drift
    cards = [(f"{s.rows:,} rows", f"{s.labelled:,} of them with a label")]
    if drift.alarm is None:
        cards.append(("cannot tell", "drift: the report failed"))
    if drift.statistic is not None:
        chance = f"p {drift.p:.2g}" if drift.p is not None else "no p"
        cards.append(
            ("alarm" if drift.alarm else "no alarm", f"drift: {chance}, of unchanged windows {drift.level:.2g} alarm")
        )
    quality = look.quality if look.quality.loss is not None else look.estimate
    if quality is not None and quality.loss is not None:
        cards.append(_quality(quality))
    if decision is not None and decision.gain is not None and decision.cost is not None:
        said = f"expected of a retraining; a lap costs {decision.cost:g}"
        if decision.realised is not None:
            said += f"; it really was {decision.realised:+.2f}"
        cards.append((f"{decision.gain:+.2f} windows' losses", said))
    return "".join(f'<div class="card"><b>{escape(big)}</b><span>{escape(small)}</span></div>' for big, small in cards)


def _quality(quality: Quality) -> tuple[str, str]:
    assert quality.excess is not None
    share = quality.excess / quality.reference if quality.reference else 0.0
    bounds = ""
    if quality.low is not None and quality.high is not None and quality.reference:
        bounds = f", 95 % {quality.low / quality.reference:+.0%} to {quality.high / quality.reference:+.0%}"
    how = "estimated without labels" if quality.estimated else "loss against its own held-out rows"
    return f"{share:+.1%} loss", f"{how}{bounds}"


def _losses(looks: Sequence[Look]) -> str:
    """Mean loss per window as bars, over the line of the champion's own record."""
    shown = [(look, q) for look in looks if (q := _known(look)) is not None and q.loss is not None and q.reference > 0]
    if len(shown) < 2:
        return ""
    shares = [q.loss / q.reference for _, q in shown if q.loss is not None]
    top = max(*shares, 1.2)
    step = _WIDTH / len(shown)
    bars = []
    for i, ((look, quality), share) in enumerate(zip(shown, shares, strict=True)):
        height = share / top * _HEIGHT
        kind = " ".join(
            ("over" if share > 1 else "", "guess" if quality.estimated else "", "here" if i == len(shown) - 1 else "")
        )
        said = (
            f"{look.stretch.start[:10]}: {share:.2f} times its own record{', estimated' if quality.estimated else ''}"
        )
        bars.append(
            f'<rect class="{kind}" x="{i * step:.1f}" y="{_HEIGHT - height:.1f}" width="{max(step - 3, 1):.1f}" height="{height:.1f}">'
            f"<title>{escape(said)}</title></rect>"
        )
    level = _HEIGHT - _HEIGHT / top
    ends = f'<text x="0" y="{_HEIGHT + 14}">{shown[0][0].stretch.start[:10]}</text>'
    ends += f'<text x="{_WIDTH}" y="{_HEIGHT + 14}" text-anchor="end">{shown[-1][0].stretch.start[:10]}</text>'
    line = f'<line x1="0" x2="{_WIDTH}" y1="{level:.1f}" y2="{level:.1f}"/>'
    svg = f'<svg class="loss" viewBox="0 0 {_WIDTH} {_HEIGHT + 18}">{"".join(bars)}{line}{ends}</svg>'
    said = "The dashed line is what this version promised on its own held-out rows; pale bars are estimates."
    return f"<h2>Loss, window by window</h2><p>{said}</p>{svg}"


def _known(look: Look) -> Quality | None:
    return look.quality if look.quality.loss is not None else look.estimate


def _findings(look: Look) -> str:
    loud = [f for f in look.drift.findings if f.alarm]
    quiet = [f for f in look.drift.findings if not f.alarm][:_QUIET]
    if not loud and not quiet:
        return ""
    most = max((_times(f) for f in (*loud, *quiet)), default=1.0)
    rows = "".join(_row(f, max(most, 1.5)) for f in (*loud, *quiet))
    head = "<tr><th>column</th><th>what of it</th><th>distance, in limits</th><th></th></tr>"
    said = f"{len(loud)} of {len(look.drift.findings)} speak. The mark is the limit: what lies left of it is what unchanged windows do."
    return f"<h2>Column by column</h2><p>{said}</p><table>{head}{rows}</table>"


def _row(finding: Finding, most: float) -> str:
    times = _times(finding)
    bar = f'<b><u style="width:{min(times / most, 1):.1%}"></u><i style="left:{1 / most:.1%}"></i></b>'
    bar = f'<div class="meter">{bar}<em>{times:.2f} x</em></div>'
    level = f'<span class="level {"stop" if finding.alarm else "pass"}">{"alarm" if finding.alarm else "quiet"}</span>'
    return (
        f'<tr><td class="name">{escape(shown_name(finding.column))}</td><td class="check">{escape(finding.aspect)}</td><td>{bar}</td>'
        f"<td>{level} {escape(finding.said)}</td></tr>"
    )


def _times(finding: Finding) -> float:
    return min(max(finding.distance / finding.limit, 0.0), 99.0) if finding.limit > 0 else 99.0 * finding.alarm


def _report(kept: Path | None) -> str:
    """Evidently's report as a part of the page: in a frame, so that neither's styles reach the other, and its scripts not ours."""
    if kept is None or not kept.exists():
        return ""
    content = escape(gzip.decompress(kept.read_bytes()).decode())
    said = "Its tests gave the alarm: the thresholds are limits that unchanged windows rarely exceed. Numbers are shown in cells."
    frame = (
        f'<iframe class="evidently" sandbox="allow-scripts" title="Evidently\'s report" srcdoc="{content}"></iframe>'
    )
    return f"<h2>Evidently's report</h2><p>{said}</p>{frame}"


def keep(path: Path, content: str | None) -> None:
    """Keep Evidently's report (HTML), whole or not at all; None: let an older one go."""
    if content is None:
        path.unlink(missing_ok=True)
        return
    packed = gzip.compress(content.encode("utf-8", "replace"), mtime=0)
    write_whole(path, lambda part: part.write_bytes(packed))


def _capital(said: str) -> str:
    return said[:1].upper() + said[1:]


def _notes(look: Look, origin: str, left_out: Sequence[str]) -> str:
    rows = "predictions in the ledger" if origin == "ledger" else "the source's rows, as the champion predicts them now"
    notes = [f"Rows: {rows}. Reference: {look.drift.reference_rows:,} held-out rows of version {look.version}."]
    notes += [look.drift.note] if look.drift.note else []
    notes += [f"Quality: {look.quality.how}."]
    if look.estimate is not None:
        notes.append(f"Estimate: {look.estimate.how}.")
    if left_out:
        notes.append(f"Left out, because the ledger does not keep them as they are: {', '.join(left_out)}.")
    said = "".join(f"<p>{escape(_capital(note))}</p>" for note in notes)
    return f'<h2>How this was measured</h2><div class="fine">{said}</div>'
