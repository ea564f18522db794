"""`manage.py prune_metrics`: makes metrics coarser as they age."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from adminmetrics import retention


class Command(BaseCommand):
    """Run it every day; calls `adminmetrics.retention`, and reports."""

    help = (
        "Folds metrics of minutes into hours, of hours into days, and of days into one count of "
        "all time, as old as METRICS_MINUTE_DAYS, METRICS_HOUR_DAYS and METRICS_DAY_DAYS say. "
        "No count is lost. Safe at any time, also twice at once."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--batch",
            type=int,
            default=retention.BATCH_ROWS,
            help=f"rows per transaction (default {retention.BATCH_ROWS})",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        for folded in retention.prune(batch=max(1, options["batch"])):
            self.stdout.write(f"{folded.kind}: {folded.rows:,}")
