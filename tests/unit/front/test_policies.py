"""The policies of a worker over its reloads: what is refused changes nothing, and watching is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import structs
from starlette.routing import Route

from gateway._native.uid import EntityUid
from gateway.config import AuthzenClientConfig, AuthzenConfig, Config, PolicyConfig, RelationsConfig
from gateway.errors import ConfigError
from gateway.front.policies import COMPILED_FOLDER, REFRESH_S, Policies, PolicyPlan
from gateway.policy.related_entities import RelatedEntities
from tests.files import rewrite
from tests.policy.decision_api import SetClock

A, READ, ONE = EntityUid("User", "a"), EntityUid("Action", "read"), EntityUid("Doc", "1")
ALLOW, DENY = "permit (principal, action, resource);\n", "forbid (principal, action, resource);\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    path = tmp_path / "policies" / "a.cedar"
    rewrite(path, ALLOW)
    return path


def started(file: Path, clock: SetClock, *, watch_s: float = 0.0) -> tuple[Policies, PolicyPlan, PolicyConfig]:
    policies = Policies(file.parent.parent, clock)
    config = PolicyConfig(path=str(file.parent), watch_s=watch_s)
    plan = policies.plan(config)
    policies.commit(plan)
    return policies, plan, config


def allows(plan: PolicyPlan) -> bool:
    return plan.handle.now.engine.allows(A, READ, ONE)


def test_a_plan_serves_only_once_it_is_committed(file: Path) -> None:
    policies, plan, config = started(file, SetClock())
    before = plan.handle.revision
    rewrite(file, DENY)
    following = policies.plan(config)
    assert following.handle is plan.handle
    assert allows(plan)
    policies.commit(following)
    assert not allows(plan)
    assert plan.handle.revision > before


def test_what_cannot_serve_is_told_with_its_place_and_changes_nothing(file: Path) -> None:
    policies, plan, config = started(file, SetClock())
    rewrite(file, ALLOW + "permit (principal);\n")
    with pytest.raises(ConfigError) as caught:
        policies.plan(config)
    assert (caught.value.faults[0].file, caught.value.faults[0].line) == (str(file), 2)
    assert allows(plan)


def test_another_folder_goes_on_with_the_same_revisions(file: Path, tmp_path: Path) -> None:
    policies, plan, _ = started(file, SetClock())
    before = plan.handle.revision
    (tmp_path / "others").mkdir()
    rewrite(tmp_path / "others" / "b.cedar", DENY)
    policies.commit(policies.plan(PolicyConfig(path=str(tmp_path / "others"))))
    assert not allows(plan)
    assert plan.handle.revision > before


async def test_files_are_watched_where_that_is_asked_for(file: Path) -> None:
    for watch_s, taken in ((0.0, False), (1.0, True)):
        rewrite(file, ALLOW)
        policies, plan, _ = started(file, SetClock(), watch_s=watch_s)
        await policies.look()
        rewrite(file, DENY)
        await policies.look()
        await policies.look()
        assert allows(plan) is not taken


async def test_a_broken_change_is_logged_and_the_former_policies_stay(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policies, plan, _ = started(file, SetClock(), watch_s=1.0)
    await policies.look()
    rewrite(file, "permit")
    for _ in range(3):
        await policies.look()
    assert allows(plan)
    assert [record.levelname for record in caplog.records if "the former ones stay" in record.message] == ["ERROR"]
    policies.commit(None)  # the config names no policies any more: nothing is watched
    rewrite(file, DENY)
    for _ in range(3):
        await policies.look()
    assert allows(plan)


async def test_looking_for_newer_policies_has_its_pace(file: Path) -> None:
    clock = SetClock()
    policies, plan, _ = started(file, clock, watch_s=60.0)
    rewrite(file, DENY)
    await policies.refresh()
    assert not allows(plan)
    rewrite(file, ALLOW)
    await policies.refresh()
    assert not allows(plan)
    clock.now_s += REFRESH_S
    await policies.refresh()
    assert allows(plan)


def test_nobody_is_served_where_nobody_may_ask(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEP", "secret")
    policies, plan, _ = started(file, SetClock())

    def routes(authzen: AuthzenConfig) -> list[Route]:
        return policies.routes(Config(authzen=authzen), plan, file.parent)

    assert routes(AuthzenConfig(base_url="https://a")) == []
    client = AuthzenClientConfig(id="pep", secret="env:PEP")
    assert len(routes(AuthzenConfig(clients=(client,)))) == 5
    assert len(routes(AuthzenConfig(open_on_loopback=True, base_url="https://a"))) == 6


async def test_a_worker_that_starts_takes_what_another_one_compiled_and_reads_the_texts_later(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(file, SetClock())
    assert list((file.parent.parent / COMPILED_FOLDER).iterdir())
    with monkeypatch.context() as patch:
        patch.delattr("gateway.policy.policy_set.PolicySet.parse")
        policies, plan, _ = started(file, SetClock())
        assert allows(plan)
    await policies.read_texts()
    monkeypatch.delattr("gateway.policy.policy_set.PolicySet.parse")
    assert list(plan.loaded.engine.policies.policies) == ["policy0"]


def test_a_cache_that_cannot_be_written_is_told_of(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    (file.parent.parent / COMPILED_FOLDER).write_text("no folder")
    _, plan, _ = started(file, SetClock())
    assert allows(plan)
    assert [record.levelname for record in caplog.records if "not kept for the next start" in record.message] == [
        "WARNING"
    ]


def test_no_claim_defines_what_relations_make(file: Path) -> None:
    rewrite(
        file.parent / "a.cedarschema",
        "entity User { @relation friends: Set<User> }; entity Doc { @relation viewers: Set<User> };"
        "action read appliesTo { principal: User, resource: Doc };",
    )
    policies = Policies(file.parent.parent, SetClock())
    plain = PolicyConfig(path=str(file.parent), relations=RelationsConfig(url="memory:"))
    entities = policies.plan(plain).loaded.engine.entities
    assert isinstance(entities, RelatedEntities)
    node = entities.graph.rules.of_type("Doc")["viewers"].node_type
    config = structs.replace(plain, principal_claims={"friends": "friends"}, principal_parents={"docs": node})
    with pytest.raises(ConfigError) as caught:
        policies.plan(config)
    assert [(fault.key, fault.problem) for fault in caught.value.faults] == [
        ("policy.principal_claims.friends", "relations make this attribute"),
        ("policy.principal_parents.docs", f"relations make `{node}`"),
    ]
