"""Templates of routes are read whole, or refused with what would have been right."""

from __future__ import annotations

import pytest

from gateway.policy.templates import PIECES_MAX, Piece, TemplateError, parse_entity_template, parse_pieces


def test_a_constant_entity() -> None:
    template = parse_entity_template('Action::"read"', ())
    assert (template.type, template.pieces, template.constant_id) == ("Action", (Piece("text", "read"),), "read")


def test_types_may_have_namespaces_and_ids_may_be_empty() -> None:
    template = parse_entity_template('  Shop::Sales::Order :: "" ', ())
    assert (template.type, template.pieces, template.constant_id) == ("Shop::Sales::Order", (), "")


def test_every_kind_of_hole() -> None:
    text = 'Thing::"{id}/{request.method}/{header.X-Tenant}/{query.page}/{claim.org.unit}"'
    slash = Piece("text", "/")
    assert parse_entity_template(text, {"id"}).pieces == (
        Piece("parameter", "id"),
        slash,
        Piece("request", "method"),
        slash,
        Piece("header", "x-tenant"),
        slash,
        Piece("query", "page"),
        slash,
        Piece("claim", "org.unit"),
    )
    assert parse_entity_template(text, {"id"}).constant_id is None


def test_doubled_braces_stand_for_themselves() -> None:
    assert parse_pieces("a{{b}}c{x}", {"x"}) == (Piece("text", "a{b}c"), Piece("parameter", "x"))


def test_escapes_are_those_of_cedar() -> None:
    assert parse_entity_template(r'T::"a\"b\\c\n"', ()).constant_id == 'a"b\\c\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Order", "is no entity"),
        ('Order::"{id}" ', "nothing fills `{id}`"),
        ('1Order::"x"', "is no entity"),
        ('Order::"{request.body}"', "nothing fills `{request.body}`"),
        ('Order::"{header.bad name}"', "nothing fills"),
        ('Order::"{cookie.a}"', "nothing fills"),
        ('Order::"{claim.}"', "nothing fills"),
        ('Order::"{query.}"', "nothing fills"),
        ('Order::"a{b"', "brace without its partner"),
        ('Order::"a}b"', "brace without its partner"),
        (r'Order::"\q"', "is no escape"),
        ('Order::"' + "a{other}" * PIECES_MAX + '"', "pieces"),
    ],
)
def test_what_is_no_template_is_refused(text: str, problem: str) -> None:
    with pytest.raises(TemplateError, match=problem) as caught:
        parse_entity_template(text, {"other"})
    assert caught.value.problem


def test_the_hint_names_the_parameters_of_the_path() -> None:
    with pytest.raises(TemplateError) as caught:
        parse_pieces("{ident}", {"id", "kind"})
    assert "id, kind" in caught.value.hint
