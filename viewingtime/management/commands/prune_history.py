"""`manage.py prune_history`: deletes sessions that no history shows any more."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser
from tqdm import tqdm

from parentalcontrols.models import Profile
from viewingtime import retention


class Command(BaseCommand):
    """Run it every day; calls `viewingtime.retention`, and reports."""

    help = (
        "Deletes the sessions of viewing days that are more than HISTORY_RETENTION_DAYS ago; "
        "balances, grants and the audit stay. Safe at any time, also twice at once."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--batch",
            type=int,
            default=retention.BATCH_ROWS,
            help=f"rows per transaction (default {retention.BATCH_ROWS})",
        )
        parser.add_argument("--dry-run", action="store_true", help="count them, and delete nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        days, dry_run = settings.HISTORY_RETENTION_DAYS, options["dry_run"]
        sessions = 0
        # None: no bar where nobody watches.
        with tqdm(unit=" profiles", disable=None) as bar:
            bar.total = None if bar.disable else Profile.objects.count()
            for pruned in retention.prune(
                days=days, batch=max(1, options["batch"]), dry_run=dry_run
            ):
                sessions += pruned.sessions
                bar.set_postfix_str(f"{sessions:,} sessions", refresh=False)
                bar.update(pruned.profiles)
        self.stdout.write(
            f"{sessions:,} sessions of viewing days more than {days} days ago "
            f"{'would be ' if dry_run else ''}deleted"
        )
        if dry_run:
            self.stdout.write("A dry run: nothing was deleted.")
