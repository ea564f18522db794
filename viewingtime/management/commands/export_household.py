"""`manage.py export_household`: everything that is stored of a household, as JSON."""

import codecs
import os
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from viewingtime import exports, households


class Command(BaseCommand):
    """What `GET /account/export` answers, for whoever cannot ask; calls `viewingtime.exports`."""

    help = (
        "Writes everything that is stored of a household to a JSON file that nobody else may read, "
        "or to standard output. No secret is in it: no hash, no token."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("household", help="its e-mail, or the account's id")
        parser.add_argument("--output", type=Path, help="a file that is not there yet")

    def handle(self, *args: Any, **options: Any) -> None:
        account = households.named(options["household"])
        output: Path | None = options["output"]
        found = exports.export(account.id)
        if output is None:
            # Parts end anywhere, within a letter too.
            decoder = codecs.getincrementaldecoder("utf-8")()
            for part in found.parts():
                self.stdout.write(decoder.decode(part), ending="")
            return
        try:
            descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise CommandError(f"The file cannot be made: {error.strerror}.") from None
        with os.fdopen(descriptor, "wb") as file:
            for part in found.parts():
                file.write(part)
        self.stdout.write(f"{found.size:,} bytes written to {output}")
