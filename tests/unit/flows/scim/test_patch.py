"""PATCH against a plain reading of the specification, and members against a plain set."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracle.scim import patched
from tests.unit.flows.scim.world import ScimWorld

NAMES = ("title", "nickName", "displayName", "userType")
ADDRESSES = ("a@x.test", "B@x.test", "b@X.TEST", "c@x.test")
entries = st.lists(st.sampled_from(ADDRESSES[:2]).map(lambda value: {"value": value}), min_size=1, max_size=2)
operations = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {
                "op": st.sampled_from(("add", "replace")),
                "path": st.sampled_from(NAMES),
                "value": st.sampled_from(("x", "Y", "ß")),
            }
        ),
        st.fixed_dictionaries({"op": st.just("remove"), "path": st.sampled_from((*NAMES, "emails"))}),
        st.fixed_dictionaries({"op": st.just("add"), "path": st.just("emails"), "value": entries}),
        st.fixed_dictionaries({"op": st.just("replace"), "path": st.just("emails"), "value": entries}),
        st.fixed_dictionaries(
            {"op": st.just("remove"), "path": st.sampled_from(ADDRESSES).map(lambda each: f'emails[value eq "{each}"]')}
        ),
    ),
    min_size=1,
    max_size=6,
)


def test_operations_do_what_a_plain_reading_of_the_specification_does(tmp_path: Path) -> None:
    with asyncio.Runner() as runner:
        world = ScimWorld(tmp_path)
        numbers = itertools.count()

        @given(st.lists(operations, min_size=1, max_size=3))
        @settings(max_examples=60, deadline=None)
        def check(requests: list[list[dict[str, Any]]]) -> None:
            made = runner.run(world.user(f"user{next(numbers)}"))
            expected: dict[str, Any] = {}
            for request in requests:
                runner.run(world.patch("User", made["id"], *request))
                expected = patched(expected, request)
            shown = runner.run(world.get("User", made["id"]))
            assert _compared(shown) == _compared(expected)

        check()
        runner.run(world.close())


def _compared(shown: dict[str, Any]) -> dict[str, Any]:
    """Entries have no order, and an address stands in a user once, however often a client wrote it."""
    made = {name: shown[name] for name in NAMES if name in shown}
    return {**made, "emails": {each["value"] for each in shown.get("emails", ())}}


def test_members_are_what_a_set_would_be(tmp_path: Path) -> None:
    with asyncio.Runner() as runner:
        world = ScimWorld(tmp_path)
        ids = [runner.run(world.user(f"user{number}"))["id"] for number in range(5)]
        group = runner.run(world.group("staff"))
        chosen = st.lists(st.integers(0, 4), min_size=1, max_size=3)
        changes = st.lists(
            st.tuples(st.sampled_from(("add", "remove", "filtered", "replace")), chosen), min_size=1, max_size=5
        )

        @given(changes)
        @settings(max_examples=60, deadline=None)
        def check(wanted: list[tuple[str, list[int]]]) -> None:
            shown = runner.run(world.get("Group", group["id"]))
            expected = {each["value"] for each in shown.get("members", ())}
            sent: list[dict[str, Any]] = []
            for op, numbers in wanted:
                named = [ids[number] for number in numbers]
                values = [{"value": each} for each in named]
                if op == "filtered":
                    sent += [{"op": "remove", "path": f'members[value eq "{each}"]'} for each in named]
                    expected -= set(named)
                else:
                    sent.append({"op": op, "path": "members", "value": values})
                    expected = {"add": expected | set(named), "remove": expected - set(named), "replace": set(named)}[
                        op
                    ]
            runner.run(world.patch("Group", group["id"], *sent))
            shown = runner.run(world.get("Group", group["id"]))
            assert {each["value"] for each in shown.get("members", ())} == expected

        check()
        runner.run(world.close())
