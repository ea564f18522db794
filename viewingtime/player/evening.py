"""What happens in an evening: pure arithmetic. Times are seconds.

An evening is a list of steps. Each step does something at once and then lets time go by. What
belongs together (a pause and its end) is an incident; an evening holds each kind of incident
once, in an order of its own, and its steps fill the given time exactly.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

#: A run that is longer than this lets a child use up the least limit there is, 15 minutes.
EXHAUSTING_SECONDS = 16 * 60
#: The longest time without a beat that still counts in full (domain.md section 2, "Silence").
SILENCE_SECONDS = 300
#: Lost connections keep this far from it, so that no rounding decides what is expected.
SILENCE_MARGIN_SECONDS = 20
LONGEST_LOST_CONNECTION_SECONDS = 400


class Act(StrEnum):
    """What a step begins with."""

    BEGIN = "begin"
    BEGIN_UNHEARD = "begin, but the answer gets lost and the player begins again"
    PAUSE = "pause"
    RESUME = "resume"
    LOSE_CONNECTION = "lose the connection and play on"
    RECONNECT = "reach the service again"
    LOSE_ANSWER = "send a beat whose answer gets lost, and send it again"
    SWITCH_DEVICE = "go on with another device"
    CRASH = "the player dies without a word"
    RESTART = "start the player anew"
    CHANGE_TITLE = "change to another title"
    STOP = "tell the service that it is over"
    VANISH = "leave without a word"


class Plot(StrEnum):
    """The kinds of evening."""

    USUAL = "usual"
    #: As usual, but the first answer gets lost and the child leaves without a word.
    CARELESS = "careless"
    #: The child watches until its time is used up, and tries once more.
    EXHAUSTING = "exhausting"
    #: An adult, whom nothing limits and who may have several sessions open.
    ADULT = "adult"


@dataclass(frozen=True, slots=True)
class Step:
    """Something happens, and then `seconds` go by."""

    act: Act
    seconds: float


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody who watches: a name for the table and the kind of evening it will be."""

    name: str
    plot: Plot

    @property
    def is_kids(self) -> bool:
        return self.plot is not Plot.ADULT


# Seconds in these are shares of the evening; what they leave is the beginning.
_INCIDENTS = (
    (Step(Act.PAUSE, 0.10), Step(Act.RESUME, 0.07)),
    (Step(Act.LOSE_CONNECTION, 0.30), Step(Act.RECONNECT, 0.04)),
    (Step(Act.LOSE_ANSWER, 0.04),),
    (Step(Act.SWITCH_DEVICE, 0.07),),
    # In three minutes more than the 30 s that are counted without a word from the player.
    (Step(Act.CRASH, 0.20), Step(Act.RESTART, 0.06)),
    (Step(Act.CHANGE_TITLE, 0.07),),
)


def household(
    number: int, *, seconds: float, has_regular_titles: bool = True, has_adults: bool = True
) -> list[Member]:
    """Who lives in the family of that number, counted from 1, and how their evening goes.

    Every third family has two kids and an adult. In every fifth a kid leaves without a word, and
    in every fifth one uses up the time, if the evening is long enough for that and there is a
    title that counts.
    """
    first = Plot.USUAL
    if number % 5 == 2:
        first = Plot.CARELESS
    elif number % 5 == 0 and seconds > EXHAUSTING_SECONDS and has_regular_titles:
        first = Plot.EXHAUSTING
    if number % 3:
        return [Member("kid", first)]
    kids = [Member("kid 1", first), Member("kid 2", Plot.USUAL)]
    return [*kids, Member("adult", Plot.ADULT)] if has_adults else kids


def plan(plot: Plot, *, seconds: float, chance: random.Random) -> list[Step]:
    """The steps of an evening of `seconds`; `chance` puts its incidents into an order."""
    if plot is Plot.EXHAUSTING:
        # Without gaps: the block has to fall on the second.
        return [
            Step(Act.BEGIN, seconds * 0.02),
            Step(Act.PAUSE, seconds * 0.01),
            Step(Act.RESUME, seconds * 0.96),
            Step(Act.RESTART, seconds * 0.01),
            Step(Act.STOP, 0),
        ]
    incidents = list(_INCIDENTS)
    if plot is Plot.ADULT:
        # What an adult's crashed player leaves open stays open; there is no end to be read.
        incidents = [i for i in incidents if i[0].act is not Act.CRASH]
    chance.shuffle(incidents)
    steps = [_scaled(step, seconds) for incident in incidents for step in incident]
    careless = plot is Plot.CARELESS
    beginning = Step(
        Act.BEGIN_UNHEARD if careless else Act.BEGIN,
        seconds - sum(step.seconds for step in steps),
    )
    return [beginning, *steps, Step(Act.VANISH if careless else Act.STOP, 0)]


def _scaled(step: Step, seconds: float) -> Step:
    length = step.seconds * seconds
    if step.act is Act.LOSE_CONNECTION:
        length = min(length, LONGEST_LOST_CONNECTION_SECONDS)
        if abs(length - SILENCE_SECONDS) < SILENCE_MARGIN_SECONDS:
            length = SILENCE_SECONDS - SILENCE_MARGIN_SECONDS
    return replace(step, seconds=length)


def start_offsets(count: int, *, beat: float) -> Sequence[float]:
    """When each of `count` players starts: spread over one beat, as players in the world are."""
    return [beat * index / count for index in range(count)]
