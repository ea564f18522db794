"""`manage.py close_stale_sessions`: ends the sessions that went silent."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from viewingtime import ledgers


class Command(BaseCommand):
    """Run it every minute or so; beats and grants book silent sessions by themselves as well."""

    help = "Ends every session whose last beat is over 300 seconds old, as of 30 s after that beat."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--batch", type=int, default=500, help="profiles per transaction (default 500)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        closed = ledgers.close_silent(batch=max(1, options["batch"]))
        self.stdout.write(f"{closed} stale session{'' if closed == 1 else 's'} closed")
