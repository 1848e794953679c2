"""The data set of relations: its size, its shape, and that what is asked of it is answered."""

from __future__ import annotations

from bench.policy_relations import SCHEMA, RelationSet, load, measure
from gateway.policy.relation_paths import relation_path
from gateway.policy.relation_rules import RelationRules
from gateway.policy.schema import Schema

SMALL = RelationSet(users=300, groups=40, folders=60, docs=400, direct_grants=100)


def test_the_whole_set_has_the_size_that_it_says() -> None:
    full = RelationSet()
    assert full.users + full.groups + full.folders + full.docs == 330_000
    levels = full.group_levels
    tops = full.groups * 2 // (levels * (levels + 1))
    expected = (
        full.groups - tops + full.users * full.groups_of_user + full.folders - 1 + full.docs + full.direct_grants
    ) + full.folders * (full.groups_of_folder + full.users_of_folder)
    assert expected == 675_000


def test_it_is_the_same_each_time_and_fits_its_schema() -> None:
    tuples = list(SMALL.tuples())
    assert tuples == list(SMALL.tuples())
    rules = RelationRules(Schema.parse(SCHEMA))
    for each in tuples:
        rules.check(each)


def test_half_of_what_is_asked_is_granted_over_several_steps() -> None:
    graph = load(list(SMALL.tuples())).graph
    asks = SMALL.asks(100)
    paths = [relation_path(graph, who, doc, "viewers") for who, doc in asks]
    assert all(path is not None for path in paths[1::2])
    assert max(len(path) for path in paths if path is not None) >= 5


def test_the_figures_are_measured() -> None:
    figures = measure(SMALL, asks=200, changes=20, rounds=1)
    assert figures.tuples > 1000
    assert 0.5 <= figures.allowed_share < 1
    assert min(figures.load_s, figures.change_p50_us, figures.store_bytes_per_tuple) > 0
    for spread in (figures.decision, figures.question):
        assert 0 < spread.p50_us <= spread.p99_us <= spread.max_us
