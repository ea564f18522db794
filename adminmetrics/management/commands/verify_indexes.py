"""`manage.py verify_indexes`: are the indexes there that the models declare, and used?"""

import json
from dataclasses import asdict
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import InterfaceError, OperationalError

from adminmetrics import index_audit
from adminmetrics.index_audit import Finding, Report
from adminmetrics.plans import JudgedQuery, UnknownProfile, Verdict

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
            count = len(report.findings)
            raise CommandError(f"{count} finding{'' if count == 1 else 's'}.", returncode=1)

    def _write_report(self, report: Report) -> None:
        self.stdout.write(
            f"PostgreSQL {report.server_version}: {report.tables} tables, {report.indexes} indexes "
            f"and {report.constraints} constraints declared."
        )
        if report.profile_id is not None:
            self.stdout.write(f"Queries are asked for profile {report.profile_id}.")
        if report.queries:
            self.stdout.write("")
            self._write_table(
                [_HEADINGS, *(row for query in report.queries for row in _rows(query))]
            )
        remarks = [
            f"{query.name}: {query.reason}."
            for query in report.queries
            if query.verdict is not Verdict.NOT_SERVED and query.reason
        ]
        if any(query.without_sequential_scans for query in report.queries):
            remarks.append("* judged with sequential scans off, because tables are small.")
        if any(query.plan and query.rows is None for query in report.queries):
            remarks.append("Rows with ~ are the planner's estimate: the query was not run.")
        for remark in (*remarks, *report.notes):
            self.stdout.write(remark)
        self.stdout.write("")
        for finding in report.findings:
            self.stdout.write(f"{finding.kind}  {_subject(finding)}")
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
            self.stdout.write(f"-- {' '.join(f'{_subject(finding)}: {finding.detail}'.split())}")
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


def _subject(finding: Finding) -> str:
    return f"{finding.table}: {finding.name}" if finding.table else finding.name


def _rows(query: JudgedQuery) -> list[tuple[str, ...]]:
    """A query's lines of the table: its figures, and one line for each index."""
    if query.plan is None:
        return [(query.name, query.verdict.replace("_", " "), "", "", "")]
    estimate = f"~{query.plan['Plan']['Plan Rows']:,}"
    first, *more = map(str, query.accesses)
    figures = (
        estimate if query.rows is None else f"{query.rows:,}",
        "" if query.pages is None else f"{query.pages:,}",
        "" if query.milliseconds is None else f"{query.milliseconds:.2f}",
    )
    name = query.name + (" *" if query.without_sequential_scans else "")
    return [(name, first, *figures), *(("", access, "", "", "") for access in more)]
