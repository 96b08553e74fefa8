"""The where expression: what it means, and that nothing gets past it."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvlp.archive.where import FIELDS, parse_where
from kvlp.errors import ArchiveError

COLUMNS = ("id", "view", "source", "split", "path", "patient", "study", "flag", "record")
ROWS = [
    dict(zip(COLUMNS, ("a", "PA", "x", "train", "old/1.png", "h7", "", "", "r1"), strict=True)),
    dict(zip(COLUMNS, ("b", "AP", "x", "test", "2.png", "h8", "", "dark", "r2"), strict=True)),
    dict(zip(COLUMNS, ("c", "", "it's", "test", "3.png", "", "hs", "", ""), strict=True)),
]


@pytest.fixture(scope="module")
def table():
    connection = sqlite3.connect(":memory:")
    columns = list(FIELDS)
    connection.execute(f"CREATE TABLE items (n INTEGER PRIMARY KEY, {', '.join(columns)})")
    connection.execute("CREATE VIRTUAL TABLE reports USING fts5(text)")
    for n, row in enumerate(ROWS, 1):
        connection.execute(f"INSERT INTO items VALUES (?{', ?' * len(columns)})", [n, *(row[c] for c in columns)])
    connection.execute("INSERT INTO reports (rowid, text) VALUES (2, 'Small pleural effusion. No edema.')")
    yield connection
    connection.close()


def found(table, text):
    condition = parse_where(text, lambda value: "h" + value)
    return "".join(
        row[0] for row in table.execute(f"SELECT id FROM items WHERE {condition.sql} ORDER BY id", condition.values)
    )


@pytest.mark.parametrize(
    "text, ids",
    [
        ("view = 'PA'", "a"),
        ("view == \"PA\"", "a"),
        ("view != 'PA'", "bc"),
        ("view = ''", "c"),
        ("source = 'it''s'", "c"),
        ("view = 'PA' and source != 'x'", ""),
        ("view = 'PA' or view = 'AP' and split = 'train'", "a"),
        ("(view = 'PA' or view = 'AP') and not split = 'train'", "b"),
        ("not (view in ('PA', 'AP'))", "c"),
        ("view not in ('PA', 'AP')", "c"),
        ("PATH LIKE 'old/%'", "a"),
        ("path not like '%old%'", "bc"),
        ("id >= 'b' and id < 'c'", "b"),
        ("patient = '7'", "a"),
        ("study in ('s', 't')", "c"),
        ("flag != ''", "b"),
        ("report ~ 'pleural effusion'", "b"),
        ("not report ~ 'effusion pleural'", "abc"),
        ("report ~ 'x\" OR \"edema'", ""),
    ],
)  # fmt: skip
def test_meaning(table, text, ids):
    assert found(table, text) == ids


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "expected a field, got 'the end'"),
        ("vieww = 'PA'", "did you mean view"),
        ("vector = 'x'", "no field 'vector'"),
        ("view = PA", "expected a quoted value for view, got 'PA'"),
        ("view = 'PA", 'cannot read "\'PA"'),
        ("view 'PA'", "expected a comparison"),
        ("view = 'PA' view = 'AP'", "expected 'and' or 'or'"),
        ("view = 'PA'; DROP TABLE items", "cannot read ';"),
        ("view = 'PA' -- x", "cannot read '-- x'"),
        ("view in ()", "expected a quoted value"),
        ("(view = 'PA'", r"expected '\)'"),
        ("patient like 'h%'", "keyed hash"),
        ("study > 'a'", "keyed hash"),
        ("report = 'x'", "expected '~'"),
        ("not " * 60 + "view = 'PA'", "levels"),
        ("(" * 60, "levels"),
        ("view = '" + "a" * 5000 + "'", "characters"),
        ("view = '\ud800'", "Unicode"),
    ],
)
def test_errors_say_what_was_expected(table, text, message):
    with pytest.raises(ArchiveError, match=message):
        found(table, text)


WORDS = st.sampled_from(
    [
        "view",
        "patient",
        "report",
        "and",
        "or",
        "not",
        "in",
        "like",
        "(",
        ")",
        ",",
        "=",
        "!=",
        "~",
        "'PA'",
        "'%'",
        '"',
        "'",
        ";",
        "--",
        "items",
        "1",
        "?",
    ]
)


@given(st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=14).map(" ".join)))
def test_any_text_is_a_condition_or_a_named_error(table, text):
    try:
        condition = parse_where(text, lambda value: value)
    except ArchiveError:
        return
    assert "'" not in condition.sql.replace("''", "")
    assert '"' not in condition.sql
    assert condition.sql.count("?") == len(condition.values)
    table.execute(f"SELECT id FROM items WHERE {condition.sql}", condition.values).fetchall()
    assert table.execute("SELECT count(*) FROM items").fetchone() == (3,)
