"""What can go wrong, and whose turn it is. Every message says what, where, and what to do next.

WindvaneError            anything Windvane raises on purpose        exit status 1
    InputError           the user's file or setting is at fault     exit status 2
    Outage               a service that should answer does not      exit status 1
    Corrupted            stored bytes are not what was recorded     exit status 1
    SealedError          the test side was touched out of turn      exit status 1

"Not there" is a value (None); "cannot tell" is one of these.
"""

from __future__ import annotations

from collections.abc import Iterable

# Of one fault in many places, so many are named in a message.
SHOWN = 5


def several(messages: Iterable[str]) -> str:
    """Messages of one kind as one: the first SHOWN, and how many more there are."""
    said = list(messages)
    more = [f"and {len(said) - SHOWN} more such columns"] if len(said) > SHOWN else []
    return "; ".join([*said[:SHOWN], *more])


class WindvaneError(Exception):
    """Base of all errors raised on purpose; its text is shown to the user as it stands."""

    exit_code = 1


class InputError(WindvaneError):
    """The user's input is at fault: one message that says what, where, and what to do."""

    exit_code = 2


class Outage(WindvaneError):
    """A store or server that should answer does not. Never to be read as "there is none"."""


class Corrupted(WindvaneError):
    """Stored bytes differ from the hash that was recorded when they were written."""


class SealedError(WindvaneError):
    """The test side was opened a second time, or outside the evaluation."""
