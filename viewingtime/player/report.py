"""The judgement and the table: own clock, rules and service side by side. Times are seconds."""

from collections.abc import Sequence
from dataclasses import dataclass

from viewingtime.player.reckoning import TOLERANCE

#: The balance is answered in two figures of hundredths of a minute: each is off by half of one.
BALANCE_ROUNDING = 2 * 0.005 * 60
#: How an evening ended whose player said nothing.
LEFT = "left"
#: Sums of floating-point seconds.
_EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class SessionCount:
    """One session: what the rules make of it and what the service counted (None = unknown).

    `leeway` is how much less the service may have, because the end had to be sent again.
    """

    rules: float
    service: float | None
    leeway: float = 0.0

    @property
    def difference(self) -> float:
        """What the service counted too much; below zero where it counted too little."""
        return 0.0 if self.service is None else self.service - self.rules

    @property
    def excess(self) -> float:
        """The size of the difference that no leeway explains."""
        if self.difference < 0:
            return max(0.0, -self.difference - self.leeway)
        return self.difference


@dataclass(frozen=True, slots=True)
class Watched:
    """One profile's evening. `balance` is what the day's balance says, None for an adult."""

    family: int
    who: str
    ending: str
    beats: int
    on_screen: float
    paused: float
    sessions: Sequence[SessionCount]
    balance: float | None = None
    balance_leeway: float = 0.0

    @property
    def rules(self) -> float:
        """What the rules make of all sessions."""
        return sum(session.rules for session in self.sessions)

    @property
    def counted(self) -> float:
        """What the service counted for all sessions, as far as it could be read."""
        return sum(session.service or 0.0 for session in self.sessions)

    @property
    def difference(self) -> float:
        """The sum over the sessions."""
        return sum(session.difference for session in self.sessions)

    @property
    def worst(self) -> float:
        """The largest difference of a session, without its sign."""
        return max((session.excess for session in self.sessions), default=0.0)


def faults(watched: Watched) -> list[str]:
    """What is wrong with the counting of an evening, one sentence each."""
    name = f"family {watched.family}, {watched.who}"
    found = []
    for session in watched.sessions:
        if session.service is None:
            found.append(f"{name}: what a session was counted could not be read")
        elif session.excess > TOLERANCE.total_seconds():
            found.append(
                f"{name}: a session was counted {session.service:.2f} s, "
                f"the rules make {session.rules:.2f} s of it"
            )
    if watched.balance is not None:
        surplus = watched.balance - watched.counted
        if (
            not -BALANCE_ROUNDING - _EPSILON
            <= surplus
            <= (BALANCE_ROUNDING + watched.balance_leeway + _EPSILON)
        ):
            found.append(
                f"{name}: the balance says {watched.balance:.1f} s, "
                f"its sessions add up to {watched.counted:.2f} s"
            )
    return found


_HEADINGS = (
    "family",
    "who",
    "ended",
    "beats",
    "sessions",
    "on screen",
    "paused",
    "by the rules",
    "counted",
    "balance",
    "difference",
    "worst session",
)
_TEXT_COLUMNS = {1, 2}


def table(evenings: Sequence[Watched]) -> list[str]:
    """The lines of the table, one per profile, with the totals at its end."""
    rows = [(str(one.family), one.who, one.ending, *_figures(one)) for one in evenings]
    whole = Watched(
        family=0,
        who="",
        ending="",
        beats=sum(one.beats for one in evenings),
        on_screen=sum(one.on_screen for one in evenings),
        paused=sum(one.paused for one in evenings),
        sessions=[session for one in evenings for session in one.sessions],
    )
    totals = ("total", f"{len(evenings)} people", "", *_figures(whole))
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *rows, totals, strict=True)]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    lines = [_line(row, widths) for row in (_HEADINGS, *rows, totals)]
    return [lines[0], rule, *lines[1:-1], rule, lines[-1]]


def _figures(one: Watched) -> tuple[str, ...]:
    return (
        str(one.beats),
        str(len(one.sessions)),
        f"{one.on_screen:.2f}",
        f"{one.paused:.2f}",
        f"{one.rules:.2f}",
        f"{one.counted:.2f}",
        "-" if one.balance is None else f"{one.balance:.1f}",
        f"{one.difference:+.3f}",
        f"{one.worst:.3f}",
    )


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.ljust(width) if column in _TEXT_COLUMNS else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()
