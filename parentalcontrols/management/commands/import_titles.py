"""`manage.py import_titles FILE`: a catalogue into the table of titles."""

import csv
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path
from time import monotonic
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from django.db import IntegrityError
from django.utils import timezone
from tqdm import tqdm

from parentalcontrols import title_files, title_rows, titles

REJECTIONS_SHOWN: Final = 10


class Command(BaseCommand):
    """Parses the arguments, calls `parentalcontrols.titles`, reports."""

    help = """\
Creates and updates titles from a JSON or CSV file (UTF-8).

A row is the title with its external id or, without one, the title with its name (whatever the
letters' case) and year; rows of the file that tell of one title are merged, the last one wins.
Only fields that the file has columns for are written, withdrawals are never touched.

Rejected are rows without a title, with NUL or other control characters, with a text that is too
long, with a list where a text belongs, or that could mean several titles. Left blank, and
counted in the report, are years without four digits, before 1888 or in the future, running times
of no minute or of more than a day, artwork addresses that are not http(s), educational flags that
are neither yes nor no (the title is regular then), and ratings that only say "not rated".

One rejected row is enough to write nothing and to exit with 1, unless --skip-invalid."""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        parser.formatter_class = RawDescriptionHelpFormatter
        return parser

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE", help="ends in .json or .csv")
        parser.add_argument(
            "--format", choices=("json", "csv"), help="what the file is, whatever its name ends in"
        )
        parser.add_argument(
            "--map",
            action="append",
            default=[],
            metavar="FIELD=COLUMN",
            help=(
                "the column of a field, again for each field; columns with usual names are found "
                f"without it. Fields: {', '.join(title_files.FIELDS)}"
            ),
        )
        parser.add_argument(
            "--educational",
            action="append",
            default=[],
            metavar="COLUMN=VALUE",
            help=(
                "titles with this value are educational; may be given again. Without it those "
                "of the genre Documentary are"
            ),
        )
        parser.add_argument(
            "--skip-invalid", action="store_true", help="import the rows that are not rejected"
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="report what would be done, write nothing"
        )
        parser.add_argument(
            "--rejects", type=Path, metavar="FILE", help="write all rejected rows here, as CSV"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        started = monotonic()
        path: Path = options["file"]
        rejects: Path | None = options["rejects"]
        if rejects is not None and rejects.resolve() == path.resolve():
            raise CommandError("--rejects names the catalogue itself: give it a file of its own.")
        if rejects is not None:
            _write_rejections(rejects, ())  # if that cannot be, better now than after the import
        try:
            rows = title_files.read_rows(path=path, file_format=options["format"])
            plan = title_files.plan_columns(
                rows=rows,
                mapping=dict(_pair("--map", text) for text in options["map"]),
                educational=[
                    title_files.EducationalRule(column=column, value=value)
                    for column, value in (
                        _pair("--educational", text) for text in options["educational"]
                    )
                ],
            )
            with tqdm(total=len(rows), unit=" rows", disable=None) as bar:
                report = titles.import_titles(
                    rows=rows,
                    plan=plan,
                    now=timezone.now(),
                    skip_invalid=options["skip_invalid"],
                    dry_run=options["dry_run"],
                    progress=bar.update,
                )
        except title_files.CatalogueError as error:
            raise CommandError(str(error)) from None
        except IntegrityError:
            raise CommandError(
                "Nothing was written: somebody else gave a title one of these external ids at "
                "the same moment. Run the import again."
            ) from None

        self._report(report, seconds=monotonic() - started, dry_run=options["dry_run"])
        if rejects is not None:
            _write_rejections(rejects, report.rejections)
        if report.rejections and not options["skip_invalid"]:
            raise CommandError(
                f"Nothing was written: {len(report.rejections):,} of {report.rows:,} rows cannot "
                "be imported. Mend the file, or run again with --skip-invalid to import the rest."
            )

    def _report(self, report: titles.ImportReport, *, seconds: float, dry_run: bool) -> None:
        would = "" if report.written else "would be "
        self.stdout.write(
            f"{report.rows:,} rows: {report.created:,} titles {would}created, "
            f"{report.updated:,} {would}updated, {report.unchanged:,} unchanged; "
            f"{report.merged:,} rows merged with others, {len(report.rejections):,} rejected "
            f"({seconds:.1f} s)."
        )
        if dry_run:
            self.stdout.write("A dry run: nothing was written.")
        if report.notes:
            self.stdout.write("Left blank:")
        for note in report.notes:
            rows = ", ".join(f"{row}" for row in note.rows)
            more = ", ..." if note.count > len(note.rows) else ""
            self.stdout.write(f"  {note.field} {note.reason}: {note.count:,} (rows {rows}{more})")
        if report.rejections:
            self.stdout.write("Rejected:")
        for rejection in report.rejections[:REJECTIONS_SHOWN]:
            name = f" ({_printable(rejection.title)})" if rejection.title else ""
            self.stdout.write(f"  row {rejection.row}{name}: {rejection.reason}")
        more_rejections = len(report.rejections) - REJECTIONS_SHOWN
        if more_rejections > 0:
            self.stdout.write(f"  and {more_rejections:,} more; --rejects FILE writes them all")


def _pair(option: str, text: str) -> tuple[str, str]:
    left, equals, right = (part.strip() for part in text.partition("="))
    if not (left and equals and right):
        raise CommandError(f"{option} takes two names with = between them, not {text!r}.")
    return left, right


def _printable(text: str) -> str:
    """For a terminal: what is not printable is written as its escape."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


def _write_rejections(path: Path, rejections: tuple[title_rows.Rejection, ...]) -> None:
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(["row", "title", "reason"])
            for one in rejections:
                lines.writerow([one.row, _printable(one.title), one.reason])
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}.") from None
