"""`manage.py doctor`: is this deployment well, and what is to be done?"""

import json
from collections import Counter
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from parentalcontrols import doctor
from parentalcontrols.doctor import State


class Command(BaseCommand):
    """Calls `parentalcontrols.doctor`, reports, and tells by its exit code what it found."""

    help = (
        "Looks at servers, tables and settings from where it is run, with the service's own "
        "environment, and says what to do. Changes nothing. Exits with 0 if all is fine, with 1 "
        "for warnings if --strict is given, with 2 for a problem or what could not be looked at."
    )
    # The checks of Django speak of the code; these of the deployment.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="for machines")
        parser.add_argument("--strict", action="store_true", help="a warning is no 0")

    def handle(self, *args: Any, **options: Any) -> None:
        findings = []
        for finding in doctor.examine():
            findings.append(finding)
            if not options["json"]:
                self.stdout.write(f"{finding.state:8} {finding.name}: {finding.found}")
                if finding.advice:
                    self.stdout.write(f"         {finding.advice}")
        if options["json"]:
            self.stdout.write(json.dumps([asdict(finding) for finding in findings], indent=2))
        counts = Counter(finding.state for finding in findings)
        if bad := counts[State.PROBLEM] + counts[State.UNKNOWN]:
            raise CommandError(f"{bad} to be mended.", returncode=2)
        if counts[State.WARNING] and options["strict"]:
            raise CommandError(f"{counts[State.WARNING]} worth mending.", returncode=1)
