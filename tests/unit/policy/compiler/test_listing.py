from __future__ import annotations

from pathlib import Path

import pytest

from gateway.policy.compiler.listing import Clause, list_program
from gateway.policy.compiler.policies import compile_statement
from gateway.policy.language.statements import parse_policies


def cases() -> list[tuple[str, str]]:
    text = Path(__file__).with_name("listings.txt").read_text()
    blocks = [block for block in text.strip().split("\n\n") if not block.startswith("#")]
    pairs = [block.split("\n=>\n") for block in blocks]
    return [(policy, listing) for policy, listing in pairs]


@pytest.mark.parametrize(("policy", "listing"), cases(), ids=[policy for policy, _ in cases()])
def test_a_policy_compiles_to_the_listed_program(policy: str, listing: str) -> None:
    assert str(list_program(compile_statement(parse_policies(policy)[0].statement))) == listing


def test_each_instruction_and_clause_names_its_place_in_the_text() -> None:
    text = "permit(principal, action, resource) when { context.a } unless { context.b && context.c };"
    listing = list_program(compile_statement(parse_policies(text)[0].statement))
    assert [(c.kind, text[c.start : c.end]) for c in listing.clauses] == [
        ("when", "context.a"),
        ("unless", "context.b && context.c"),
    ]
    assert isinstance(listing.clauses[0], Clause)
    places = {i.name: text[i.start : i.end] for i in listing.instructions if i.start >= 0}
    assert places["AND"] == "context.b"
    assert places["CHECK"] == "context.c"
