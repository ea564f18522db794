"""`manage.py verify_indexes`: are the indexes there that the models declare, and used?"""

import json
from dataclasses import asdict
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import InterfaceError, OperationalError

from adminmetrics import index_audit, index_health
from adminmetrics.index_audit import Report
from adminmetrics.plans import JudgedQuery, UnknownProfile

_HEADINGS = ("query", "served by", "rows", "pages", "ms")


class Command(BaseCommand):
    """Calls `adminmetrics.index_audit`, reports, and tells by its exit code what it found."""

    help = (
        "Compares indexes and constraints with the models, and judges the plans of the service's "
        "queries. Changes nothing. Exits with 0 if all is sound, 1 if not, 2 if it cannot tell."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--profile",
            type=UUID,
            metavar="ID",
            help="ask the queries for this profile (default: one with many sessions)",
        )
        form = parser.add_mutually_exclusive_group()
        form.add_argument("--json", action="store_true", help="for machines, with complete plans")
        form.add_argument(
            "--fix-sql", action="store_true", help="print the SQL that mends what was found"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            report = index_audit.audit(profile_id=options["profile"])
        except UnknownProfile:
            raise CommandError("There is no profile with this id.", returncode=2) from None
        except (OperationalError, InterfaceError) as error:
            cause = str(error).strip().splitlines()[0]
            raise CommandError(f"The database does not answer: {cause}", returncode=2) from None
        if options["json"]:
            self.stdout.write(json.dumps(as_json(report), indent=2))
        elif options["fix_sql"]:
            self._write_sql(report)
        else:
            self._write_report(report)
        if not report.is_sound:
            raise CommandError(f"{index_health.counted(report)}.", returncode=1)

    def _write_report(self, report: Report) -> None:
        self.stdout.write(index_health.declared(report))
        if report.profile_id is not None:
            self.stdout.write(f"Queries are asked for profile {report.profile_id}.")
        if report.queries:
            self.stdout.write("")
            self._write_table(
                [_HEADINGS, *(row for query in report.queries for row in _rows(query))]
            )
        for remark in index_health.remarks(report):
            self.stdout.write(remark)
        self.stdout.write("")
        for finding in report.findings:
            self.stdout.write(f"{finding.kind}  {index_health.subject(finding)}")
            self.stdout.write(f"    {finding.detail}")
        if report.is_sound:
            self.stdout.write("Sound.")

    def _write_table(self, rows: list[tuple[str, ...]]) -> None:
        widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
        for row in rows:
            cells = [
                cell.ljust(width) if place < 2 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            self.stdout.write("  ".join(cells).rstrip())

    def _write_sql(self, report: Report) -> None:
        self.stdout.write("-- For psql, outside of a transaction, as the owner of the tables.")
        for finding in report.findings:
            # A name with a new line in it must not end the comment.
            comment = f"{index_health.subject(finding)}: {finding.detail}"
            self.stdout.write(f"-- {' '.join(comment.split())}")
            for statement in finding.fix:
                self.stdout.write(statement)
        if report.is_sound:
            self.stdout.write("-- There is nothing to mend.")


def as_json(report: Report) -> dict[str, Any]:
    """The report for machines; members are added, never renamed or dropped."""
    return {
        "is_sound": report.is_sound,
        **asdict(report),
        "profile_id": report.profile_id and str(report.profile_id),
    }


def _rows(query: JudgedQuery) -> list[tuple[str, ...]]:
    """A query's lines of the table: its figures, and one line for each index."""
    if query.plan is None:
        return [(query.name, query.verdict.replace("_", " "), "", "", "")]
    told = index_health.figures(query)
    first, *more = told.served_by
    name = query.name + (" *" if query.without_sequential_scans else "")
    return [
        (name, first, told.rows, told.pages, told.milliseconds),
        *(("", access, "", "", "") for access in more),
    ]
