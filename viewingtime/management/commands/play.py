"""Plays an evening for many families at once, as a real client of a running service."""

import random
from argparse import ArgumentTypeError
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError
from tqdm import tqdm

from parentalcontrols.models import Title
from viewingtime.player.families import Evening, Progress, Run
from viewingtime.player.reckoning import Title as Playable
from viewingtime.player.report import BALANCE_ROUNDING, LEFT, Watched, faults, table
from viewingtime.player.service import NoServiceError, Surprises

#: Titles of either kind, educational and regular, that are played.
TITLES_OF_A_KIND = 8
#: Seconds between two beats in a run that is too short for the service's own pace.
SHORT_RUN_BEAT_SECONDS = 10.0
SHORT_RUN_MINUTES = 10.0
#: The longest that a player waits for its next beat, in seconds, whatever the service says.
USUAL_BEAT_SECONDS = 30.0
BAR = "{desc}: {percentage:3.0f}% |{bar}| {n:.0f} of {total:.0f} {unit}{postfix}"
#: Within it a reset hour twelve hours away is out of reach.
LONGEST_RUN_MINUTES = 600.0


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ArgumentTypeError("must be 1 or more")
    return value


def _minutes(text: str) -> float:
    value = float(text)
    if not 0 < value <= LONGEST_RUN_MINUTES:
        raise ArgumentTypeError(f"must be above 0 and at most {LONGEST_RUN_MINUTES:.0f}")
    return value


def _beat_seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 60:
        raise ArgumentTypeError("must be from 0.1 to 60")
    return value


class Command(BaseCommand):
    help = (
        "Registers families at a running service and plays an evening for all of them at once, in "
        "real time and over HTTP. Prints what each child watched by its own clock, what the rules "
        "make of it and what the service counted. Ends with 1 if a session is off by more than a "
        "second or something failed, with 2 if there was nothing to play with."
    )
    # A client has no say in how the server is configured.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--families", type=_count, default=5, help="how many (default 5)")
        parser.add_argument(
            "--minutes", type=_minutes, default=3.0, help="how long, also 0.5 (default 3)"
        )
        parser.add_argument("--base-url", default=settings.BASE_URL, help="default: BASE_URL")
        parser.add_argument(
            "--beat",
            type=_beat_seconds,
            help=(
                "beat at least every so many seconds (default: "
                f"{SHORT_RUN_BEAT_SECONDS:.0f} in runs of up to {SHORT_RUN_MINUTES:.0f} minutes, "
                "else as the service says)"
            ),
        )
        parser.add_argument("--seed", type=int, help="to have the same evenings again")
        parser.add_argument(
            "--title-id",
            type=UUID,
            action="append",
            help="play this title, may be repeated (default: some of either kind)",
        )

    def handle(
        self,
        *args: Any,
        families: int,
        minutes: float,
        base_url: str,
        beat: float | None,
        seed: int | None,
        title_id: list[UUID] | None,
        **options: Any,
    ) -> None:
        if beat is None:
            is_short = minutes <= SHORT_RUN_MINUTES
            beat = SHORT_RUN_BEAT_SECONDS if is_short else USUAL_BEAT_SECONDS
        run = Run(
            base_url=base_url,
            families=families,
            seconds=minutes * 60,
            longest_beat=beat,
            titles=_titles(title_id),
            seed=random.randrange(10**6) if seed is None else seed,  # nosec B311
        )
        evening = Evening(run)
        try:
            evening.check()
        except NoServiceError as error:
            raise CommandError(str(error), returncode=2) from None
        self.stdout.write(
            f"{families} families play for {minutes:g} min at {base_url} (--seed {run.seed})"
        )
        try:
            evenings = self._play(evening)
        except KeyboardInterrupt:
            raise CommandError("Stopped before anybody had begun.", returncode=2) from None
        self._report(evenings, evening.surprises)

    def _play(self, evening: Evening) -> list[Watched]:
        # None: no bar where nobody watches.
        with tqdm(desc="moving in", disable=None, total=1, unit="", bar_format=BAR) as bar:

            def watch(progress: Progress) -> None:
                bar.set_description_str(progress.stage, refresh=False)
                bar.unit, bar.total, bar.n = progress.unit, progress.out_of, progress.done
                bar.set_postfix_str(f"{progress.beats} beats")

            return evening.play(watch)

    def _report(self, evenings: Sequence[Watched], surprises: Surprises) -> None:
        """Prints the table; raises CommandError if anything in it, or on the way, was wrong."""
        for line in ("", *table(evenings), ""):
            self.stdout.write(line)
        self.stdout.write("Seconds. On screen and paused are by the player's own clock.")
        if any(one.ending == LEFT for one in evenings):
            self.stdout.write(
                "Who left without a word has a session open still; what it was counted is read "
                f"from the balance, whose rounding makes up to {BALANCE_ROUNDING:.1f} s."
            )
        for text, count in surprises.counted(faults=False):
            self.stdout.write(f"Surprise, got over: {text} ({count}x)")
        wrong = [fault for one in evenings for fault in faults(one)]
        wrong += [f"{text} ({count}x)" for text, count in surprises.counted(faults=True)]
        if not evenings:
            wrong.append("nobody could play")
        for text in wrong:
            self.stdout.write(f"WRONG: {text}")
        if wrong:
            raise CommandError("The evening did not go as the rules say.", returncode=1)
        sessions = sum(len(one.sessions) for one in evenings)
        worst = max(one.worst for one in evenings)
        self.stdout.write(
            f"All {sessions} sessions were counted as the rules say; "
            f"the largest difference is {worst:.3f} s, one second is allowed."
        )


def _titles(wanted: Sequence[UUID] | None) -> list[Playable]:
    """What is played: the wanted titles, or some of either kind. Withdrawn ones cannot start."""
    running = Title.objects.filter(withdrawn_at=None).order_by("id")
    flags = running.values_list("id", "is_educational")
    try:
        if wanted:
            found = list(flags.filter(id__in=wanted))
        else:
            found = [
                row
                for is_educational in (True, False)
                for row in flags.filter(is_educational=is_educational)[:TITLES_OF_A_KIND]
            ]
    except DatabaseError as error:
        cause = str(error).partition("\n")[0]
        raise CommandError(
            f"The titles cannot be read ({cause}): DATABASE_URL must name the database of the "
            "service that is played with.",
            returncode=2,
        ) from None
    if wanted and len(found) < len(set(wanted)):
        raise CommandError(
            "A title that is to be played does not exist or is withdrawn.", returncode=2
        )
    if not found:
        raise CommandError(
            "The catalogue is empty: import titles first (manage.py import_titles).", returncode=2
        )
    return [Playable(title, is_educational) for title, is_educational in found]
