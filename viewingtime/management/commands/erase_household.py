"""`manage.py erase_household`: erases a household, or one of its profiles, for good."""

from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser

from parentalcontrols.problems import Problem
from pins import audit
from pins.erasures import Receipt
from viewingtime import erasure, households


class Command(BaseCommand):
    """Calls `viewingtime.erasure`, and reports."""

    help = (
        "Erases a household, or one profile of it, with all that is stored of it; nothing brings "
        "it back but a backup. Prints the receipt, a row that stays in the log of erasures."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("household", nargs="?", help="its e-mail, or the account's id")
        parser.add_argument("--profile", type=UUID, metavar="ID", help="this profile alone")
        parser.add_argument("--yes", action="store_true", help="needed: there is no way back")
        parser.add_argument(
            "--repeat",
            action="store_true",
            help="erase again what the log says was erased and a restore brought back",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["repeat"] == (options["household"] is not None):
            raise CommandError("Name a household, or say --repeat.")
        if options["repeat"]:
            receipts = erasure.repeat()
            for receipt in receipts:
                self._tell(receipt)
            self.stdout.write(f"{len(receipts)} erased again")
            return
        account = households.named(options["household"])
        if not options["yes"]:
            raise CommandError("Nothing was erased: there is no way back, so say --yes, too.")
        try:
            if options["profile"] is None:
                receipt = erasure.erase_account(account_id=account.id, actor=audit.OPERATOR)
            else:
                receipt = erasure.erase_profile(
                    profile_id=options["profile"], account_id=account.id, actor=audit.OPERATOR
                )
        except Problem as problem:
            raise CommandError(f"Nothing was erased: {problem.detail}") from None
        self._tell(receipt)

    def _tell(self, receipt: Receipt) -> None:
        counts = ", ".join(f"{kind} {rows:,}" for kind, rows in receipt.deleted.items())
        self.stdout.write(
            f"receipt {receipt.id} of {receipt.erased_at:%Y-%m-%dT%H:%M:%SZ}: {counts}"
        )
