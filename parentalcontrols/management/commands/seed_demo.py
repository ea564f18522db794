"""`manage.py seed_demo`: a household, a staff login and a catalogue to try the service with."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from parentalcontrols import demo


class Command(BaseCommand):
    """Refuses outside demo mode, calls `parentalcontrols.demo`, reports."""

    help = (
        "Creates the demo's accounts, profiles and titles; what is there already stays as it is. "
        "The passwords are public, so it refuses to run unless DEMO is true."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.DEMO:
            raise CommandError(
                "The demo's passwords are public: seed_demo runs only where DEMO=true is set, "
                "which no server with real households may be."
            )
        report = demo.seed(now=timezone.now())
        self.stdout.write(
            f"Demo: {report.accounts} accounts, {report.profiles} profiles and "
            f"{report.titles} titles created."
        )
