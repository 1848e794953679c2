"""The machine against Cedar and against its slow twin, over generated cases.

`python -m tests.policy.differential --requests 1000000` compares with Cedar for as long as it takes, with progress; a
difference ends it with a reduced case and exit code 1.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from collections.abc import Iterable
from typing import Any

import cedarpy

from gateway._native.uid import EntityUid
from gateway.policy.policy_set import PolicySet
from tests.oracle import policy as oracle
from tests.policy import generate
from tests.policy.generate import Case
from tests.policy.machine import decider_of, store_of

REQUESTS_A_CASE = 50
_ERRING = re.compile(r"policy `([^`]*)`")


def read_policies(case: Case) -> PolicySet:
    """Read the text of a case and make its links."""
    made = PolicySet.parse(case.policies)
    for template_id, policy_id, slots in case.links:
        made = made.link(template_id, policy_id, slots)
    return made


def verdicts_of_machine(case: Case) -> list[oracle.Verdict]:
    """Decide with the machine: by every way of asking, which must agree."""
    decider = decider_of(store_of(case.entities), read_policies(case))
    prepared = [decider.prepare(r.principal, r.action, r.resource, dict(r.context)) for r in case.requests]
    decisions = decider.decide_all(prepared)
    made = []
    for request, ready, decision in zip(case.requests, prepared, decisions, strict=True):
        answer = decider.authorize(request.principal, request.action, request.resource, dict(request.context))
        assert answer.faults == (), answer
        assert answer == decider.answer(ready)
        assert answer.allowed == decision == decider.decide(ready)
        assert answer.allowed == decider.allows(
            request.principal, request.action, request.resource, dict(request.context)
        )
        made.append(oracle.Verdict(answer.allowed, answer.reasons, answer.errors))
    return made


def verdicts_without_index(case: Case) -> list[oracle.Verdict]:
    """Run every policy of the machine for every request, and put the decision together here."""
    policies = read_policies(case)
    decider = decider_of(store_of(case.entities), policies)
    made = []
    for request in case.requests:
        ready = decider.prepare(request.principal, request.action, request.resource, dict(request.context))
        runs = dict(zip(decider.ids, decider.run_each(ready), strict=True))
        found: dict[str, set[str]] = {"permit": set(), "forbid": set()}
        for policy_id, (_, code, satisfied, _) in runs.items():
            if satisfied and code is None:
                found[policies.policies[policy_id].statement.effect].add(policy_id)
        errors = frozenset(policy_id for policy_id, (_, code, _, _) in runs.items() if code is not None)
        reasons = frozenset(found["forbid"] or found["permit"])
        made.append(oracle.Verdict(bool(found["permit"]) and not found["forbid"], reasons, errors))
    return made


def verdicts_of_oracle(case: Case) -> list[oracle.Verdict]:
    """Decide with the slow twin."""
    policies = read_policies(case).policies
    return [oracle.authorize(policies, request, case.entities) for request in case.requests]


def verdicts_of_cedar(case: Case) -> list[oracle.Verdict]:
    """Decide with Cedar itself."""

    def name(uid: EntityUid) -> dict[str, str]:
        return {"type": uid.type, "id": uid.id}

    policies = cedarpy.PolicySet.from_str(case.policies)
    if case.links:
        links = [
            {
                "template_id": template_id,
                "new_id": policy_id,
                "values": {slot: name(uid) for slot, uid in slots.items()},
            }
            for template_id, policy_id, slots in case.links
        ]
        policies = policies.with_linked_batch(links)
    known = cedarpy.Entities.from_json_str(json.dumps(generate.entities_json(case.entities)))
    requests: list[dict[Any, Any]] = [
        {
            "principal": name(r.principal),
            "action": name(r.action),
            "resource": name(r.resource),
            "context": json.dumps(generate.spelled(dict(r.context))),
        }
        for r in case.requests
    ]
    made = []
    for answer in cedarpy.is_authorized_batch(requests, policies, known):
        erring = frozenset(_erring(text) for text in answer.diagnostics.errors)
        made.append(oracle.Verdict(answer.allowed, frozenset(answer.diagnostics.reasons), erring))
    return made


def _erring(text: str) -> str:
    found = _ERRING.search(text)
    assert found is not None, text
    return found[1]


def differences(case: Case) -> list[str]:
    """Say where the machine and Cedar differ."""
    ours, theirs = verdicts_of_machine(case), verdicts_of_cedar(case)
    return [
        f"{request}\n  machine: {mine}\n  Cedar:   {other}"
        for request, mine, other in zip(case.requests, ours, theirs, strict=True)
        if mine != other
    ]


def reduce(case: Case) -> Case:
    """Give a smaller case that still differs: fewer requests, statements, entities, attributes."""

    def still(smaller: Case) -> bool:
        try:
            return bool(differences(smaller))
        except ValueError:
            return False

    for request in case.requests:
        if still(smaller := Case(case.policies, case.links, case.entities, [request])):
            case = smaller
            break
    # A statement that is left out leaves a harmless one, so that ids stay.
    lines = case.policies.splitlines()
    for number in range(len(lines)):
        without = [*lines[:number], "permit(principal, action, resource) when { false };", *lines[number + 1 :]]
        links = [link for link in case.links if link[0] != f"policy{number}"]
        if still(smaller := Case("\n".join(without), links, case.entities, case.requests)):
            case, lines = smaller, without
    for uid in list(case.entities):
        left = {other: entity for other, entity in case.entities.items() if other != uid}
        if still(smaller := Case(case.policies, case.links, left, case.requests)):
            case = smaller
    return case


def compare(seed: int, requests: int) -> Iterable[tuple[int, int, int]]:
    """Compare case after case; yield sums: requests, of them allowed, with errors. Raises AssertionError, reduced."""
    done = allowed = erring = 0
    number = 0
    while done < requests:
        case = generate.case(random.Random(f"{seed} {number}"), requests=REQUESTS_A_CASE)
        number += 1
        ours, theirs = verdicts_of_machine(case), verdicts_of_cedar(case)
        if ours != theirs:
            small = reduce(case)
            raise AssertionError(f"seed {seed}, case {number - 1}: {small}\n" + "\n".join(differences(small)))
        done += len(ours)
        allowed += sum(verdict.allowed for verdict in ours)
        erring += sum(bool(verdict.errors) for verdict in ours)
        yield done, allowed, erring


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    begin = shown = time.monotonic()
    sums = (0, 0, 0)
    try:
        for sums in compare(options.seed, options.requests):
            if time.monotonic() - shown > 10:
                shown = time.monotonic()
                print(f"{sums[0]:,} requests, {sums[0] / (shown - begin):,.0f} a second", flush=True)
    except AssertionError as difference:
        print(difference)
        return 1
    seconds = time.monotonic() - begin
    done, allowed, erring = sums
    print(f"{done:,} requests, 0 differences; {allowed:,} allowed, {erring:,} with errors; {seconds:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
