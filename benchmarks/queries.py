"""What an endpoint asks the database: how many statements, and how the server carries them out."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from benchmarks.closed_loop import Page
from parentalcontrols.processes import ServerError

#: Statements that ask for nothing.
_CONTROL = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "SET ")


@dataclass(frozen=True, slots=True)
class Asked:
    """The statements of one request, the one that checks the token left out.

    `scans` are the ways in which sessions were read, `spills` how many sorts went to disk.
    """

    statements: Sequence[str]
    scans: Sequence[str]
    spills: int
    answer: Any

    @property
    def reads_whole_table(self) -> bool:
        """Whether a statement read all sessions there are."""
        return any(scan.startswith("Seq Scan") for scan in self.scans)


def ask(page: Page) -> Asked:
    """Asks for a page in this process; raises ServerError where it is not answered by 200."""
    from django.db import DatabaseError, connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    client = Client(headers={"Authorization": f"Bearer {page.token}"})
    with CaptureQueriesContext(connection) as captured:
        response = client.get(page.path)
    if response.status_code != 200:
        raise ServerError(f"GET {page.path} is answered {response.status_code} instead of 200.")
    statements = [
        str(query["sql"])
        for query in captured.captured_queries
        if not str(query["sql"]).startswith(_CONTROL)
    ]
    own = [sql for sql in statements if not _checks_the_token(sql)]
    scans: list[str] = []
    spills = 0
    for sql in own:
        with suppress(DatabaseError), connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}")
            plan = cursor.fetchone()[0]
            plans = json.loads(plan) if isinstance(plan, str) else plan
            for node in _nodes(plans[0]["Plan"]):
                spills += node.get("Sort Space Type") == "Disk"
                if node.get("Relation Name") == "viewing_sessions":
                    scans.append(f"{node['Node Type']} {_index(node)}".strip())
    return Asked(own, scans, spills, response.json())


def _checks_the_token(sql: str) -> bool:
    return 'FROM "accounts"' in sql and "viewing" not in sql


def _nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def _index(node: Mapping[str, Any]) -> str:
    """The index that a scan uses, a bitmap's included."""
    if "Index Name" in node:
        return str(node["Index Name"])
    names = [str(one["Index Name"]) for one in _nodes(node) if "Index Name" in one]
    return ", ".join(names)
