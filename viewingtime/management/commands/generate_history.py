"""`manage.py generate_history`: believable households and what they watched, in bulk."""

import re
from argparse import ArgumentTypeError
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from tqdm import tqdm

from viewingtime.generator import demo, history

MOST = 1_000_000_000


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= MOST:
        raise ArgumentTypeError("must be 1 or more")
    return value


def _days(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 3650:
        raise ArgumentTypeError("must be from 1 to 3650")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 0.9:
        raise ArgumentTypeError("must be from 0 to 0.9")
    return value


def _prefix(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,39}", text):
        raise ArgumentTypeError("must be up to 40 small letters, digits, dots and hyphens")
    return text


class Command(BaseCommand):
    """Parses, calls `viewingtime.generator.history`, reports."""

    help = (
        "Fills a database for benchmarks and demonstrations: households nobody can log in to, and "
        "what they watched on viewing days that are over, exact by the rules. Refuses to run where "
        "DEMO is not true, unless --yes is given."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--sessions", type=_count, default=100_000, help="how many in all (default 100000)"
        )
        parser.add_argument(
            "--profiles",
            type=_count,
            help="how many children (default: as many as make four sessions a day each)",
        )
        parser.add_argument(
            "--days", type=_days, default=30, help="spread over so many viewing days (default 30)"
        )
        parser.add_argument(
            "--adults",
            type=_share,
            default=0.1,
            help="the adults' share of the sessions, 0 to 0.9 (default 0.1)",
        )
        parser.add_argument(
            "--seed", type=int, default=1, help="the same seed makes the same rows (default 1)"
        )
        parser.add_argument(
            "--prefix",
            type=_prefix,
            default="generated",
            help="e-mails are PREFIX-SEED-NUMBER@example.com (default generated)",
        )
        parser.add_argument(
            "--demo",
            action="store_true",
            help="four weeks for the demo's household instead, unless it has watched already",
        )
        parser.add_argument(
            "--yes", action="store_true", help="also where DEMO is not true: I know what I do"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["demo"]:
            self._fill_demo()
        else:
            self._generate(**options)

    def _fill_demo(self) -> None:
        if not settings.DEMO:
            raise CommandError("--demo fills the household of the demo: set DEMO=true first.")
        self.stdout.write(f"Demo: {demo.fill():,} sessions of the last four weeks created.")

    def _generate(
        self,
        *,
        sessions: int,
        profiles: int | None,
        days: int,
        adults: float,
        seed: int,
        prefix: str,
        yes: bool,
        **options: Any,
    ) -> None:
        if not (settings.DEMO or yes):
            raise CommandError(
                "This writes made-up households into the database that DATABASE_URL names, and "
                "nothing takes them out again: give --yes if no real family is in there."
            )
        plan = history.Plan(
            sessions=sessions,
            kids=profiles or max(1, round(sessions / (days * history.USUAL_SESSIONS_A_DAY))),
            days=days,
            adults=adults,
            seed=seed,
            prefix=prefix,
        )
        try:
            # None: no bar where nobody watches.
            with tqdm(total=sessions, unit=" sessions", unit_scale=True, disable=None) as bar:
                made = history.generate(plan, progress=bar.update)
        except history.NotPossible as error:
            raise CommandError(f"Nothing was written. {error}") from None
        self.stdout.write(
            f"{made.sessions:,} sessions and {made.grants:,} grants of {made.kids:,} children in "
            f"{made.households:,} households created, {plan.email(1)} and so on."
        )
