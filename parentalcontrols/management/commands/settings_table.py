"""`manage.py settings_table`: the tables of environment variables in docs/settings.md."""

from typing import Any

from django.core.management.base import BaseCommand

from parentalcontrols import settings_tables


class Command(BaseCommand):
    """For developers, after a setting was added; a test says when it is due."""

    help = "Makes the tables of environment variables in docs/settings.md anew."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        before = settings_tables.DOCUMENT.read_text(encoding="utf-8")
        after = settings_tables.updated(before)
        settings_tables.DOCUMENT.write_text(after, encoding="utf-8")
        self.stdout.write("Nothing was to be changed." if after == before else "Made anew.")
