"""What an audit of the indexes found, in words: for `manage.py verify_indexes` and the admin."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from adminmetrics.index_audit import Finding, Report
from adminmetrics.plans import JudgedQuery, Verdict

#: How many seconds the audit may take while somebody waits for the page.
PAGE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one query, as texts: what serves it, and what it cost; empty where it was not run.

    Rows begin with ~ where they are the planner's estimate.
    """

    served_by: tuple[str, ...] = ()
    rows: str = ""
    pages: str = ""
    milliseconds: str = ""


def figures(query: JudgedQuery) -> Figures:
    """The figures of a query; all are empty where it has no plan."""
    if query.plan is None:
        return Figures()
    estimate = f"~{query.plan['Plan']['Plan Rows']:,}"
    return Figures(
        served_by=tuple(map(str, query.accesses)),
        rows=estimate if query.rows is None else f"{query.rows:,}",
        pages="" if query.pages is None else f"{query.pages:,}",
        milliseconds="" if query.milliseconds is None else f"{query.milliseconds:.2f}",
    )


def declared(report: Report) -> str:
    """What was compared."""
    return (
        f"PostgreSQL {report.server_version}: {report.tables} tables, {report.indexes} indexes "
        f"and {report.constraints} constraints declared."
    )


def counted(report: Report) -> str:
    """How many findings there are."""
    count = len(report.findings)
    return f"{count} finding{'' if count == 1 else 's'}"


def subject(finding: Finding) -> str:
    """What a finding is about."""
    return f"{finding.table}: {finding.name}" if finding.table else finding.name


def remarks(report: Report) -> Iterator[str]:
    """What else is to be said about the plans, and the report's notes."""
    for query in report.queries:
        if query.verdict is not Verdict.NOT_SERVED and query.reason:
            yield f"{query.name}: {query.reason}."
    if any(query.without_sequential_scans for query in report.queries):
        yield "* judged with sequential scans off, because tables are small."
    if any(query.plan and query.rows is None for query in report.queries):
        yield "Rows with ~ are the planner's estimate: the query was not run."
    yield from report.notes


def page(report: Report) -> dict[str, Any]:
    """What the admin's page shows of a report."""
    return {
        "verdict": _verdict(report),
        "is_sound": report.is_sound,
        "declared": declared(report),
        "profile_id": report.profile_id,
        "findings": [
            {
                "kind": finding.kind.replace("_", " "),
                "table": finding.table,
                "name": finding.name,
                "detail": finding.detail,
                "sql": "\n".join(finding.fix),
            }
            for finding in report.findings
        ],
        "queries": [
            {
                "name": query.name,
                "mark": " *" if query.without_sequential_scans else "",
                "verdict": query.verdict.replace("_", " "),
                "is_served": query.verdict is Verdict.SERVED,
                "is_lost": query.verdict is Verdict.NOT_SERVED,
                "reason": query.reason,
                "figures": figures(query),
                "plan": query.plan and json.dumps(query.plan, indent=2),
            }
            for query in report.queries
        ],
        "remarks": list(remarks(report)),
    }


def _verdict(report: Report) -> str:
    """Whether all is sound, in one sentence, and never more than could be told."""
    if not report.is_sound:
        return f"Not sound: {counted(report)}."
    left = sum(query.verdict is Verdict.NOT_JUDGED for query in report.queries)
    if left:
        of_all = f"{left} of {len(report.queries)} queries"
        return f"Nothing wrong was found, but {of_all} could not be judged."
    if not report.queries:
        return "Nothing wrong was found, but no query was judged."
    return "Sound: indexes and constraints are as declared, and every query is served by them."
