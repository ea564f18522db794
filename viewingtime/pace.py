"""How many beats a step of a queue may take, learnt from how long the last ones took.

A step costs something for itself (a round trip, a commit, a replica that has to confirm) and
something for each of its beats. Fewer beats make only the second part shorter. The two are told
apart by comparing steps of different sizes; a database whose commits are slow gets large steps,
one whose rows are slow gets small ones.
"""

from collections import deque
from typing import Final

#: The most beats of one statement, unless a single request has more.
MOST_BEATS: Final = 500
#: Seconds that a step should take at the most: where beats are slow it takes fewer of them.
STEP_SECONDS: Final = 0.4
#: And where half of that and more is the step's own: twice its own, up to this.
_LONG_STEP_SECONDS: Final = 0.8
#: Seconds for beats that are left to a step in any case.
_ROOM_SECONDS: Final = 0.1
#: Beats that a step always may take.
LEAST_BEATS: Final = 4
#: As many steps are remembered.
_STEPS: Final = 16


class Pace:
    """What one queue has learnt; `most_beats` for the next step, which may yet find fewer."""

    __slots__ = ("_last_seconds", "_steps", "_was_cut_off", "most_beats")

    def __init__(self) -> None:
        self.most_beats = MOST_BEATS
        self._steps: deque[tuple[int, float]] = deque(maxlen=_STEPS)
        self._last_seconds = 0.0
        self._was_cut_off = False

    def note(self, beats: int, seconds: float, *, cut_off: bool = False) -> None:
        """A step of so many beats took so long. `cut_off`: the database had not done it by then.

        Portions shrink only after a step that took too long, and grow only after a full one.
        """
        self._last_seconds, self._was_cut_off = seconds, cut_off
        if cut_off:
            # How long it would have taken nobody knows, and what was known held no longer.
            if seconds > STEP_SECONDS:
                self._steps.clear()
                self._set(min(self.most_beats, int(beats * STEP_SECONDS / seconds)))
            return
        is_full = 2 * beats > self.most_beats
        own, each = self._costs(beats, seconds)
        self._steps.appendleft((beats, seconds))
        limit = max(STEP_SECONDS, min(2 * own, _LONG_STEP_SECONDS), own + _ROOM_SECONDS)
        fitting = (limit - own) / each if each > 0 else float(MOST_BEATS)
        if seconds > limit:
            self._set(min(self.most_beats, fitting))
        elif is_full and fitting > self.most_beats:
            self._set(min(4 * self.most_beats, fitting))

    def margin(self, deadline_seconds: float) -> float:
        """Seconds that a request needs to have left to be taken: a step may take twice as long as
        the last one. Never so many that a request which just came would be refused.
        """
        most = 2 * STEP_SECONDS
        if not self._was_cut_off:
            most = max(most, 1.25 * self._last_seconds)
        return min(2 * self._last_seconds, most, 0.6 * deadline_seconds)

    def _costs(self, beats: int, seconds: float) -> tuple[float, float]:
        """Seconds of a step itself, and of each beat: by the last step of another size.

        Without one all is taken for the beats' sake, and half as many are tried, or twice as many:
        that tells.
        """
        for others, their_seconds in self._steps:
            if 2 * others <= beats or 2 * beats <= others:
                each = max(0.0, (seconds - their_seconds) / (beats - others))
                return max(0.0, seconds - each * beats), each
        if seconds > STEP_SECONDS:
            return 0.0, max(seconds, 2 * STEP_SECONDS) / beats
        return 0.0, min(seconds, STEP_SECONDS / 2) / beats

    def _set(self, beats: float) -> None:
        self.most_beats = max(LEAST_BEATS, min(int(beats), MOST_BEATS))
