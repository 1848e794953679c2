"""What is asked of SQL databases, in the form that each driver takes; names as they are compared; places in a log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import bindparam, select

from gateway.stores.schema import USERS, folded
from gateway.stores.sql import Compiler, ask, ask_once
from gateway.stores.sql_postgres import _dialect as postgres_dialect
from gateway.stores.sql_postgres import _each, _parsed, _position, _pyformat, _spelled
from gateway.stores.sql_sqlite import _dialect as sqlite_dialect


def test_text_is_taken_by_both_drivers() -> None:
    text = "SELECT x::text FROM t WHERE a = :name_1 AND b LIKE '%' AND c = :name_12"
    postgres = Compiler(postgres_dialect, _pyformat)
    assert postgres.compile(ask(text, name_1=1, name_12=2)) == (
        "SELECT x::text FROM t WHERE a = %(name_1)s AND b LIKE '%%' AND c = %(name_12)s",
        {"name_1": 1, "name_12": 2},
    )
    sqlite = Compiler(sqlite_dialect, lambda text: text)
    assert sqlite.compile(ask("SELECT :a", a=1)) == ("SELECT :a", {"a": 1})


def test_a_statement_that_is_kept_takes_new_values_each_time() -> None:
    statement = select(USERS.c.id).where(USERS.c.tenant == bindparam("tenant"))
    for dialect, mark in ((postgres_dialect, "%(tenant)s"), (sqlite_dialect, ":tenant")):
        compiler = Compiler(dialect, str)
        first, second = (compiler.compile(ask(statement, tenant=tenant)) for tenant in ("a", "b"))
        assert mark in first[0]
        assert first[0] is second[0], "compiled once"
        assert (first[1], second[1]) == ({"tenant": "a"}, {"tenant": "b"})


def test_a_statement_for_one_question_spells_out_its_list() -> None:
    compiler = Compiler(sqlite_dialect, str)
    for ids in (["a"], ["a", "b", "c"]):
        text, values = compiler.compile(ask_once(select(USERS.c.id).where(USERS.c.id.in_(ids))))
        assert text.count(":id_") == len(ids)
        assert sorted(values[name] for name in values if name != "id_1") == ids


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Alice", "aLICE"),
        ("Jose\u0301", "JOS\u00c9"),
        ("\uff41lice", "Alice"),
        ("stra\u00dfe", "STRASSE"),
        ("\ufb01sh", "FISH"),
        ("\u0399\u0308\u0301", "\u0390"),
        ("\u03a3", "\u03c2"),
    ],
)
def test_names_that_are_one(one: str, other: str) -> None:
    assert folded(one) == folded(other)


@given(st.text())
def test_folding_twice_changes_nothing(name: str) -> None:
    assert folded(folded(name)) == folded(name)


@given(st.integers(0, 2**64 - 1))
def test_a_place_in_the_log_is_read_as_it_was_spelled(position: int) -> None:
    assert _parsed(_spelled(position)) == position
    assert _position(_spelled(position).removeprefix("lsn:")) == position


def test_each_server_of_an_address_is_asked_by_itself() -> None:
    assert _each("postgresql://u:p@a:1,b/d?sslmode=require") == [
        "postgresql://u:p@a:1/d?sslmode=require",
        "postgresql://u:p@b/d?sslmode=require",
    ]
    with pytest.raises(ValueError, match="unknown kind of store"):
        _each("redis://a")
