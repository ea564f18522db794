"""`manage.py import_titles` and the module that does its work.

With TITLES_FILE=path the tests of a whole catalogue run on that file too.
"""

import codecs
import csv
import json
import os
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from parentalcontrols import title_files, title_rows, titles
from parentalcontrols.models import Title

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
UNTIDY = Path(__file__).parent / "data" / "untidy_movies.json"
CATALOGUES = [UNTIDY, *(Path(path) for path in [os.environ.get("TITLES_FILE")] if path)]


def rows_of(*cells: object) -> list[title_files.Row]:
    return [
        title_files.Row(number=number, cells=one)
        if isinstance(one, Mapping)
        else title_files.Row(number=number, cells={}, fault=str(one))
        for number, one in enumerate(cells, 1)
    ]


def checked(*cells: object) -> title_rows.CheckedRows:
    rows = rows_of(*cells)
    return title_rows.check_rows(
        rows=rows, plan=title_files.plan_columns(rows=rows), this_year=NOW.year
    )


def value_of(field: str, cell: object) -> title_files.Value:
    (record,) = checked({"title": "Somewhere", field: cell}).records
    return record.values[field]


def imported(*cells: object, **options: Any) -> titles.ImportReport:
    rows = rows_of(*cells)
    plan = title_files.plan_columns(rows=rows)
    return titles.import_titles(rows=rows, plan=plan, now=NOW, **options)


def counts(report: titles.ImportReport) -> tuple[int, int, int, int, int]:
    return (
        report.created,
        report.updated,
        report.unchanged,
        report.merged,
        len(report.rejections),
    )


def command(*arguments: object) -> str:
    out = StringIO()
    call_command("import_titles", *map(str, arguments), stdout=out)
    return out.getvalue()


@pytest.fixture
def json_file(tmp_path: Path):
    def write(content: object, name: str = "catalogue.json") -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write


@pytest.fixture
def csv_file(tmp_path: Path):
    def write(text: str, *, bom: bool = False, name: str = "catalogue.csv") -> Path:
        path = tmp_path / name
        path.write_bytes((codecs.BOM_UTF8 if bom else b"") + text.encode())
        return path

    return write


# --- Whole catalogues -----------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.name)
class TestARealCatalogue:
    def test_is_imported_and_the_second_time_creates_and_changes_nothing(self, path):
        rows = title_files.read_rows(path=path)
        plan = title_files.plan_columns(rows=rows)
        first = titles.import_titles(rows=rows, plan=plan, now=NOW, skip_invalid=True)
        again = titles.import_titles(rows=rows, plan=plan, now=NOW, skip_invalid=True)

        assert first.rows == len(rows) == sum(counts(first))
        assert first.created == Title.objects.count() > 0
        assert (again.created, again.updated) == (0, 0)
        assert again.unchanged == first.created
        assert (again.rejections, again.notes) == (first.rejections, first.notes)

    def test_rejects_the_film_without_a_title_and_nothing_else(self, path):
        rows = title_files.read_rows(path=path)
        report = titles.import_titles(rows=rows, plan=title_files.plan_columns(rows=rows), now=NOW)

        nameless = [row.number for row in rows if row.cells["Title"] is None]
        assert [(one.row, one.reason) for one in report.rejections] == [
            (number, "has no title") for number in nameless
        ]
        assert len(nameless) == 1
        assert not report.written
        assert not Title.objects.exists()

    def test_keeps_titles_that_are_numbers_and_makes_documentaries_educational(self, path):
        rows = title_files.read_rows(path=path)
        plan = title_files.plan_columns(rows=rows)
        titles.import_titles(rows=rows, plan=plan, now=NOW, skip_invalid=True)

        assert Title.objects.filter(title__in=["1776", "1941", "9", "21", "300"]).count() == 5
        documentaries = sum(row.cells["Major Genre"] == "Documentary" for row in rows)
        educational = Title.objects.filter(is_educational=True)
        assert educational.count() == documentaries > 0
        assert set(educational.values_list("genre", flat=True)) == {"Documentary"}

    def test_has_no_year_to_come_and_no_rating_that_says_nothing(self, path):
        rows = title_files.read_rows(path=path)
        report = titles.import_titles(
            rows=rows, plan=title_files.plan_columns(rows=rows), now=NOW, skip_invalid=True
        )

        assert not Title.objects.filter(release_year__gt=2026).exists()
        assert Title.objects.get(title="Wings").release_year is None
        ratings = set(Title.objects.values_list("age_rating", flat=True))
        assert ratings == {"", "G", "PG", "PG-13", "R", "NC-17"}
        notes = {(note.field, note.reason): note.count for note in report.notes}
        future = Counter(int(str(row.cells["Release Date"])[-4:]) > 2026 for row in rows)
        unrated = Counter(row.cells["MPAA Rating"] for row in rows if row.cells["Title"])
        assert notes == {
            ("release_year", "is later than 2026"): future[True],
            ("age_rating", "says that there is no rating"): unrated["Not Rated"] + unrated["Open"],
        }

    def test_keeps_films_of_one_name_apart_by_their_year(self, path):
        rows = title_files.read_rows(path=path)
        titles.import_titles(
            rows=rows, plan=title_files.plan_columns(rows=rows), now=NOW, skip_invalid=True
        )

        years = Title.objects.filter(title="Peter Pan").order_by("release_year")
        assert list(years.values_list("release_year", flat=True)) == [1953, 2003]


# --- Fields ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "year"),
    [
        (1998, 1998),
        (1998.0, 1998),
        ("1998", 1998),
        ("1998-06-12", 1998),
        ("1998-06-12T10:00:00Z", 1998),
        ("Jun 12 1998", 1998),
        ("June 12, 1998", 1998),
        ("12/06/1998", 1998),
        (1888, 1888),
        (2026, 2026),
        (None, None),
        ("", None),
        (2027, None),
        ("Dec 31 2046", None),
        (1887, None),
        ("12-Jun-98", None),
        ("98", None),
        ("1998-2001", None),
        ("19980612", None),
        ("soon", None),
        (0, None),
        (-1998, None),
        ("\u0661\u0669\u0669\u0668", None),
    ],
)
def test_a_year_is_read_from_any_date_that_says_its_century_and_can_be(cell, year):
    assert value_of("release_year", cell) == year


@pytest.mark.parametrize(
    ("cell", "minutes"),
    [
        (95, 95),
        (95.0, 95),
        ("95", 95),
        ("95 min", 95),
        ("95 Minutes", 95),
        (1, 1),
        (1440, 1440),
        (None, None),
        (0, None),
        (-5, None),
        (1441, None),
        (95.5, None),
        ("1:35", None),
        ("9" * 50, None),
    ],
)
def test_a_running_time_is_a_whole_number_of_minutes_up_to_a_day(cell, minutes):
    assert value_of("runtime_minutes", cell) == minutes


@pytest.mark.parametrize("cell", [None, "", "Not Rated", "not rated", "Unrated", "NR", "Open"])
def test_every_spelling_of_an_unknown_rating_is_no_rating(cell):
    assert value_of("age_rating", cell) == ""


@pytest.mark.parametrize(
    ("cell", "flag"),
    [
        (True, True),
        ("yes", True),
        ("1", True),
        (1, True),
        (False, False),
        ("No", False),
        (0, False),
        (None, None),
        ("perhaps", None),
    ],
)
def test_an_educational_flag_is_yes_or_no_or_unknown(cell, flag):
    assert value_of("is_educational", cell) is flag


@pytest.mark.parametrize(
    ("cell", "address"),
    [
        ("https://example.com/a.png", "https://example.com/a.png"),
        ("javascript:alert(1)", ""),
        ("a.png", ""),
        (None, ""),
    ],
)
def test_artwork_has_an_address_that_a_browser_opens(cell, address):
    assert value_of("artwork_url", cell) == address


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        (1776, "1776"),
        (9.0, "9"),
        (8.5, "8.5"),
        ("  Up \n", "Up"),
        ("Ame\u0301lie", "Am\u00e9lie"),
        ("???", "???"),
        ("\u5343\u3068\u5343\u5c0b", "\u5343\u3068\u5343\u5c0b"),
    ],
)
def test_a_title_is_kept_as_text_without_space_around_it(cell, name):
    (record,) = checked({"title": cell}).records
    assert record.title == name


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"title": None}, "has no title"),
        ({"title": " \t "}, "has no title"),
        ({"title": "\u200b"}, "has no title"),
        ({"genre": "Drama"}, "has no title"),
        ({"title": "U\x00p"}, "title contains a NUL character"),
        ({"title": "U\x07p"}, "title contains control characters"),
        ({"title": "U\np"}, "title contains control characters"),
        ({"title": "U\x85p"}, "title contains control characters"),
        ({"title": "U\ud800p"}, "title contains control characters"),
        ({"title": "x" * 301}, "title has 301 characters, 300 is the most"),
        ({"title": True}, "title is a boolean, not a text"),
        ({"title": ["Up"]}, "title is a list, not a text"),
        ({"title": {"en": "Up"}}, "title is an object, not a text"),
        ({"title": float("nan")}, "title is not a number"),
        ({"title": "Up", "synopsis": "a\x00b"}, "synopsis contains a NUL character"),
        ({"title": "Up", "director": "x" * 201}, "director has 201 characters, 200 is the most"),
        ({"title": "Up", "age_rating": "x" * 21}, "age_rating has 21 characters, 20 is the most"),
        ({"title": "Up", "external_id": "x" * 101}, "external_id has 101 characters"),
        ({"title": "Up", "release_year": "19\x0098"}, "release_year contains a NUL character"),
        (
            {"title": "U\x07p", "genre": "x" * 101},
            "title contains control characters; genre has 101 characters, 100 is the most",
        ),
        ("is not an object", "is not an object"),
    ],
)
def test_a_row_that_cannot_be_stored_truthfully_is_rejected_with_the_reason(cells, reason):
    outcome = checked({"title": "Fine", "genre": "Drama"}, cells)
    assert [record.title for record in outcome.records] == ["Fine"]
    (rejection,) = outcome.rejections
    assert rejection.row == 2
    assert rejection.reason.startswith(reason)


def test_a_synopsis_may_have_lines():
    assert value_of("synopsis", "One.\n\tTwo.") == "One.\n\tTwo."


def test_what_is_blanked_in_a_rejected_row_is_not_noted():
    outcome = checked({"title": "Up", "year": 1009}, {"title": None, "year": 1009})
    (note,) = outcome.notes
    assert (note.field, note.count, note.rows) == ("release_year", 1, (1,))


def test_the_longest_texts_are_those_of_the_table():
    for field, longest in title_rows.LONGEST.items():
        if field != "synopsis":
            assert Title._meta.get_field(field).max_length == longest


# --- Columns --------------------------------------------------------------------------------


def test_columns_are_found_by_their_names_whatever_case_and_punctuation():
    rows = rows_of({"TITLE": "Up", "Release_Year": 2009, "Age rating": "PG", "Running Time": 96})
    assert title_files.plan_columns(rows=rows).columns == {
        "title": "TITLE",
        "release_year": "Release_Year",
        "age_rating": "Age rating",
        "runtime_minutes": "Running Time",
    }


def test_a_mapping_goes_before_the_usual_names():
    rows = rows_of({"Title": "Up", "Original Name": "Oben"})
    plan = title_files.plan_columns(rows=rows, mapping={"title": "original name"})
    assert plan.columns == {"title": "Original Name"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"mapping": {"colour": "Title"}}, "There is no field 'colour' to map"),
        ({"mapping": {"genre": "Kind"}}, "The file has no column 'Kind'"),
        (
            {"educational": [title_files.EducationalRule(column="Kind", value="x")]},
            "The file has no column 'Kind'",
        ),
    ],
)
def test_a_mapping_to_nothing_is_refused(options, sentence):
    with pytest.raises(title_files.CatalogueError, match=sentence):
        title_files.plan_columns(rows=rows_of({"Title": "Up"}), **options)


def test_a_file_without_titles_is_refused_with_the_names_of_its_columns():
    with pytest.raises(title_files.CatalogueError, match=r"No column holds .*'Film', 'Kind'"):
        title_files.plan_columns(rows=rows_of({"Film": "Up", "Kind": "x"}))


def test_rules_make_titles_educational_where_the_flag_itself_is_silent():
    rows = rows_of(
        {"Title": "A", "Kind": "Nature", "Educational": None},
        {"Title": "B", "Kind": "drama", "Educational": None},
        {"Title": "C", "Kind": "nature ", "Educational": "no"},
        {"Title": "D", "Kind": None, "Educational": None},
    )
    rule = title_files.EducationalRule(column="kind", value="NATURE")
    plan = title_files.plan_columns(rows=rows, educational=[rule])
    outcome = title_rows.check_rows(rows=rows, plan=plan, this_year=2026)
    assert [record.values["is_educational"] for record in outcome.records] == [
        True,
        False,
        False,
        None,
    ]


# --- Rows of one title ----------------------------------------------------------------------


def test_rows_of_one_title_are_merged_and_the_last_one_wins():
    outcome = checked(
        {"title": "Oceans", "year": 2010, "genre": "Documentary", "director": "A"},
        {"title": "Babe", "year": 1995, "genre": "Drama", "director": ""},
        {"title": "OCEANS", "year": 2010, "genre": "", "director": "B"},
    )
    assert [record.rows for record in outcome.records] == [(1, 3), (2,)]
    assert outcome.records[0].values == {
        "title": "OCEANS",
        "release_year": 2010,
        "genre": "Documentary",
        "director": "B",
        "is_educational": True,
    }


def test_a_row_without_an_external_id_joins_the_only_one_that_has_its_name_and_year():
    outcome = checked(
        {"external_id": None, "title": "babe", "year": 1995, "director": "Noonan"},
        {"external_id": "x1", "title": "Babe", "year": 1995, "director": None},
        {"external_id": "x1", "title": "Babe!", "year": 1995, "director": None},
        {"external_id": None, "title": "Babe!", "year": 1995, "director": None},
    )
    assert [(record.rows, record.external_id) for record in outcome.records] == [
        ((1,), None),
        ((2, 3, 4), "x1"),
    ]


def test_a_row_that_could_mean_two_external_ids_is_rejected():
    outcome = checked(
        {"external_id": "x1", "title": "Babe", "year": 1995},
        {"external_id": "x2", "title": "Babe", "year": 1995},
        {"external_id": "", "title": "babe", "year": 1995},
    )
    assert [record.external_id for record in outcome.records] == ["x1", "x2"]
    assert [one.row for one in outcome.rejections] == [3]


# --- Writing --------------------------------------------------------------------------------


@pytest.mark.django_db
class TestWriting:
    def test_an_external_id_finds_its_title_whatever_it_is_called_now(self):
        title = Title.objects.create(external_id="x1", title="Working title", release_year=2008)
        report = imported({"external_id": "x1", "title": "Up", "year": 2009})
        assert counts(report) == (0, 1, 0, 0, 0)
        title.refresh_from_db()
        assert (title.title, title.release_year) == ("Up", 2009)

    def test_a_row_without_one_finds_its_title_by_name_and_year_whatever_the_case(self):
        Title.objects.create(external_id="x1", title="up", release_year=2009)
        report = imported({"title": "UP", "year": 2009}, {"title": "Up", "year": 2010})
        assert counts(report) == (1, 1, 0, 0, 0)
        assert set(Title.objects.values_list("title", "release_year", "external_id")) == {
            ("UP", 2009, "x1"),
            ("Up", 2010, None),
        }

    def test_a_file_without_years_finds_titles_by_name_alone(self):
        Title.objects.create(title="Up", release_year=2009)
        report = imported({"title": "up", "synopsis": "Balloons."})
        assert counts(report) == (0, 1, 0, 0, 0)
        title = Title.objects.get()
        assert (title.release_year, title.synopsis) == (2009, "Balloons.")

    def test_a_title_without_an_external_id_gets_it_from_the_row_of_its_name_and_year(self):
        title = Title.objects.create(title="Up", release_year=2009)
        report = imported(
            {"external_id": "x1", "title": "up", "year": 2009},
            {"external_id": "x2", "title": "up", "year": 2009},
        )
        assert counts(report) == (1, 1, 0, 0, 0)
        title.refresh_from_db()
        assert title.external_id == "x1"

    def test_a_row_that_could_mean_two_titles_is_rejected(self):
        Title.objects.create(title="Up", release_year=2009)
        Title.objects.create(title="UP", release_year=2009)
        report = imported({"title": "New"}, {"title": "Up", "year": 2009}, skip_invalid=True)
        assert counts(report) == (1, 0, 0, 0, 1)
        assert report.rejections[0].row == 2

        report = imported({"title": "Newer"}, {"title": "Up", "year": 2009})
        assert not report.written
        assert not Title.objects.filter(title="Newer").exists()

    def test_only_what_the_file_has_columns_for_is_written(self):
        title = Title.objects.create(
            external_id="x1",
            title="Up",
            release_year=2009,
            is_educational=True,
            genre="Adventure",
            synopsis="Balloons.",
            withdrawn_at=NOW,
        )
        imported({"external_id": "x1", "title": "Up", "director": "Docter"})
        title.refresh_from_db()
        assert title.director == "Docter"
        assert (title.release_year, title.genre, title.synopsis) == (2009, "Adventure", "Balloons.")
        assert title.is_educational
        assert title.withdrawn_at == NOW

    def test_an_object_that_lacks_a_column_of_the_others_leaves_it_as_it_is(self):
        Title.objects.create(external_id="x1", title="Up", genre="Adventure")
        imported(
            {"external_id": "x1", "title": "Up!"},
            {"external_id": "x2", "title": "Down", "genre": "Drama"},
        )
        assert Title.objects.get(external_id="x1").genre == "Adventure"

    def test_an_empty_cell_empties_the_field(self):
        Title.objects.create(external_id="x1", title="Up", genre="Documentary", is_educational=True)
        imported({"external_id": "x1", "title": "Up", "genre": None})
        title = Title.objects.get()
        assert (title.genre, title.is_educational) == ("", False)

    def test_a_title_that_says_the_same_is_not_written(self):
        imported({"title": "Up", "year": 2009})
        before = Title.objects.get().updated_at
        assert counts(imported({"title": "Up", "year": 2009})) == (0, 0, 1, 0, 0)
        assert Title.objects.get().updated_at == before

    def test_a_changed_title_says_when(self):
        title = Title.objects.create(title="Up", release_year=2009)
        imported({"title": "Up", "year": 2009, "genre": "Adventure"})
        title.refresh_from_db()
        assert title.updated_at == NOW

    def test_renaming_one_title_leaves_its_old_name_to_another_row(self):
        Title.objects.create(external_id="x1", title="Up", release_year=2009)
        rows = (
            {"external_id": None, "title": "Up", "year": 2009},
            {"external_id": "x1", "title": "Upwards", "year": 2009},
        )
        assert counts(imported(*rows)) == (1, 1, 0, 0, 0)
        assert counts(imported(*rows)) == (0, 0, 2, 0, 0)

    def test_letters_that_the_database_does_not_fold_are_found_again(self):
        rows = ({"title": "L\u00c8ON", "year": 1994}, {"title": "\u0130stanbul", "year": 2000})
        assert counts(imported(*rows)) == (2, 0, 0, 0, 0)
        assert counts(imported(*rows)) == (0, 0, 2, 0, 0)

    def test_one_rejected_row_means_that_nothing_is_written(self):
        report = imported({"title": "Up"}, {"title": None})
        assert counts(report) == (1, 0, 0, 0, 1)
        assert not report.written
        assert not Title.objects.exists()

    def test_a_dry_run_counts_and_writes_nothing(self):
        Title.objects.create(external_id="x1", title="Up")
        rows = ({"external_id": "x1", "title": "Up!"}, {"external_id": "x2", "title": "Babe"})
        report = imported(*rows, dry_run=True)
        assert counts(report) == (1, 1, 0, 0, 0)
        assert not report.written
        assert list(Title.objects.values_list("title", flat=True)) == ["Up"]

    def test_progress_adds_up_to_all_rows(self):
        steps: list[int] = []
        rows = [{"title": "Up"}, {"title": "up"}, {"title": None}, {"title": "Babe"}]
        imported(*rows, skip_invalid=True, progress=steps.append)
        assert sum(steps) == len(rows)

    def test_the_number_of_statements_depends_on_thousands_of_rows_alone(self):
        def statements(count: int, genre: str) -> int:
            rows = [
                {"external_id": f"x{number}", "title": f"Film {number}", "genre": genre}
                for number in range(count)
            ]
            with CaptureQueriesContext(connection) as queries:
                imported(*rows)
            return len([one for one in queries if "SAVEPOINT" not in one["sql"]])

        # The import's lock; per 1,000 rows two look-ups, and a write for new and for changed ones.
        assert statements(10, "Drama") == 1 + 2 + 1
        assert statements(990, "Drama") == 1 + 2 + 1
        assert statements(1000, "Comedy") == 1 + 2 + 2
        assert statements(2500, "Western") == 1 + 3 * (2 + 1)

    def test_a_child_can_start_a_title_while_an_import_has_it_locked(self):
        with CaptureQueriesContext(connection) as queries:
            imported({"title": "Up"})
        locks = [one["sql"] for one in queries if "FOR " in one["sql"]]
        assert locks
        assert all(sql.endswith("FOR NO KEY UPDATE") for sql in locks)


# --- Files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b'"titles"', "must be a list of objects"),
        (b'{"films": []}', "must be a list of objects"),
        (b'[{"title": "\xff"}]', "is not UTF-8"),
        (b"[" * 200_000, "is not JSON"),
        (b'[{"title": ' + b"9" * 5000 + b"}]", "is not JSON"),
    ],
)
def test_a_file_that_is_not_json_is_refused_with_a_sentence(tmp_path, content, sentence):
    path = tmp_path / "catalogue.json"
    path.write_bytes(content)
    with pytest.raises(title_files.CatalogueError, match=sentence):
        title_files.read_rows(path=path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has no header"),
        ("\n", "has no header"),
        ("title,title\nUp,Up\n", "two columns with the name 'title'"),
        ('title\n"Up', "is not CSV"),
    ],
)
def test_a_file_that_is_not_csv_is_refused_with_a_sentence(csv_file, text, sentence):
    with pytest.raises(title_files.CatalogueError, match=sentence):
        title_files.read_rows(path=csv_file(text))


def test_an_ending_that_says_nothing_needs_the_format(csv_file):
    path = csv_file("title\nUp\n", name="catalogue.txt")
    with pytest.raises(title_files.CatalogueError, match="--format"):
        title_files.read_rows(path=path)
    assert [row.cells for row in title_files.read_rows(path=path, file_format="csv")] == [
        {"title": "Up"}
    ]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(title_files.CatalogueError, match="No such file"):
        title_files.read_rows(path=tmp_path / "none.json")


def test_json_may_be_a_list_or_hold_one_as_titles_with_a_byte_order_mark_or_without(tmp_path):
    for content in (b'[{"title": 9}]', codecs.BOM_UTF8 + b'{"titles": [{"title": 9}]}'):
        path = tmp_path / "catalogue.json"
        path.write_bytes(content)
        assert title_files.read_rows(path=path) == [title_files.Row(number=1, cells={"title": 9})]


def test_csv_rows_are_counted_without_header_and_empty_lines(csv_file):
    rows = title_files.read_rows(
        path=csv_file(
            'title,synopsis\r\n"Up","Two\r\nlines"\r\n\r\nBabe\r\nHook,a,b\r\nToys,\r\n', bom=True
        )
    )
    assert [(row.number, row.fault) for row in rows] == [
        (1, ""),
        (2, "has 1 cells under 2 columns"),
        (3, "has 3 cells under 2 columns"),
        (4, ""),
    ]
    assert rows[0].cells == {"title": "Up", "synopsis": "Two\r\nlines"}


def test_a_cell_of_any_length_is_its_rows_fault_alone(csv_file):
    rows = title_files.read_rows(path=csv_file("title\n" + "x" * 200_000 + "\nUp\n"))
    outcome = title_rows.check_rows(
        rows=rows, plan=title_files.plan_columns(rows=rows), this_year=2026
    )
    assert [record.title for record in outcome.records] == ["Up"]
    assert outcome.rejections[0].reason == "title has 200000 characters, 300 is the most"


# --- The command ----------------------------------------------------------------------------


@pytest.mark.django_db
class TestTheCommand:
    def test_imports_a_csv_file_with_a_mapping_and_a_rule(self, csv_file):
        path = csv_file("Nr;,Film,Jahr,Art\n7,Die Maus,1971,Wissen\n8,Oben,2009,Film\n", bom=True)
        output = command(
            path,
            "--map",
            "title=Film",
            "--map=release_year=jahr",
            "--map=external_id=Nr;",
            "--map=genre=Art",
            "--educational",
            "Art=wissen",
        )
        assert "2 rows: 2 titles created, 0 updated, 0 unchanged" in output
        assert set(
            Title.objects.values_list("external_id", "title", "release_year", "is_educational")
        ) == {("7", "Die Maus", 1971, True), ("8", "Oben", 2009, False)}

    def test_writes_nothing_and_says_how_to_go_on_when_a_row_is_rejected(self, json_file):
        path = json_file([{"title": "Up"}, {"title": None}])
        with pytest.raises(CommandError, match=r"1 of 2 rows cannot .* --skip-invalid"):
            command(path)
        assert not Title.objects.exists()

    def test_skips_rejected_rows_and_writes_all_of_them_to_a_file(self, json_file, tmp_path):
        path = json_file([{"title": "Up"}, *({"title": f"\x07{n}", "n": n} for n in range(12))])
        rejects = tmp_path / "rejects.csv"
        output = command(path, "--skip-invalid", "--rejects", rejects)

        assert "1 titles created" in output
        assert "  row 2 (\\x070): title contains control characters\n" in output
        assert "  and 2 more; --rejects FILE writes them all\n" in output
        with rejects.open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file))
        assert lines[0] == ["row", "title", "reason"]
        assert lines[1] == ["2", "\\x070", "title contains control characters"]
        assert len(lines) == 13

    def test_reports_what_was_left_blank(self, json_file):
        path = json_file([{"title": f"Film {n}", "year": 1009} for n in range(7)])
        assert (
            "  release_year is earlier than 1888, the year of the first film: 7 "
            "(rows 1, 2, 3, 4, 5, ...)\n"
        ) in command(path)

    def test_a_dry_run_says_so(self, json_file):
        output = command(json_file([{"title": "Up"}]), "--dry-run")
        assert "1 titles would be created, 0 would be updated" in output
        assert "A dry run: nothing was written." in output
        assert not Title.objects.exists()

    def test_an_empty_catalogue_is_no_error(self, json_file):
        assert command(json_file([])).startswith("0 rows: 0 titles created")

    def test_shows_no_progress_bar_where_nobody_watches(self, json_file, capsys):
        command(json_file([{"title": "Up"}]))
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (["--map", "title"], "--map takes two names with = between them, not 'title'"),
            (["--educational", "=x"], "--educational takes two names"),
            (["--map", "titel=title"], "There is no field 'titel'"),
        ],
    )
    def test_refuses_a_mapping_that_is_none(self, json_file, arguments, sentence):
        with pytest.raises(CommandError, match=sentence):
            command(json_file([{"title": "Up"}]), *arguments)

    def test_never_overwrites_the_catalogue_with_the_rejects(self, json_file):
        path = json_file([{"title": "Up"}])
        with pytest.raises(CommandError, match="names the catalogue itself"):
            command(path, "--rejects", path)
        assert json.loads(path.read_text()) == [{"title": "Up"}]

    def test_finds_out_before_the_import_that_rejects_cannot_be_written(self, json_file, tmp_path):
        with pytest.raises(CommandError, match="cannot be written"):
            command(json_file([{"title": "Up"}]), "--rejects", tmp_path / "none" / "rejects.csv")
        assert not Title.objects.exists()

    def test_asks_to_run_again_when_somebody_else_took_an_external_id(self, json_file, monkeypatch):
        def taken(**_: object) -> None:
            raise IntegrityError

        monkeypatch.setattr(titles, "import_titles", taken)
        with pytest.raises(CommandError, match="Run the import again"):
            command(json_file([{"title": "Up"}]))

    def test_judges_years_by_todays_date(self, json_file):
        next_year = timezone.now().year + 1
        assert f"release_year is later than {next_year - 1}: 1" in command(
            json_file([{"title": "Up", "year": next_year}])
        )
