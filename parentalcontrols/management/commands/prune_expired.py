"""`manage.py prune_expired`: deletes log-ins, keys, counts and tokens that have run out."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from parentalcontrols import expiry


class Command(BaseCommand):
    """Run it every day; calls `parentalcontrols.expiry`, and reports."""

    help = (
        "Deletes refresh families, idempotency keys, rate-limit windows and used PIN tokens that "
        "have run out. Safe at any time, also twice at once."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--batch",
            type=int,
            default=expiry.BATCH_ROWS,
            help=f"rows per transaction (default {expiry.BATCH_ROWS})",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        for pruned in expiry.prune(batch=max(1, options["batch"])):
            self.stdout.write(f"{pruned.kind}: {pruned.rows:,} deleted")
