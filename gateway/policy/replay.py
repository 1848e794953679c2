"""A decision log, decided again by other policies: what would have come out otherwise, for whom and where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from gateway._native.uid import EntityUid
from gateway.policy.engine import Engine
from gateway.policy.logged import Damaged, LoggedDecision, Unrepeatable, read_decision

DAMAGED_NAMED_MAX: Final = 20  # damaged lines that are told by their number; the rest is counted
EXAMPLES_MAX: Final = 5  # of one kind of difference
GROUPS_MAX: Final = 100_000  # kinds of difference; the rest is counted
PROGRESS_LINES: Final = 10_000


@dataclass(frozen=True, slots=True)
class Kind:
    """What differs alike: one user at one place, with one action, in one direction."""

    principal: EntityUid
    place: str
    action: EntityUid
    was_allowed: bool


@dataclass(frozen=True, slots=True)
class Example:
    """One decision that differs."""

    line: int
    id: str
    resource: EntityUid
    policies_then: tuple[str, ...]
    policies_now: tuple[str, ...]
    errors_now: tuple[str, ...]
    faults_now: tuple[str, ...]


@dataclass(slots=True)
class Differences:
    """How often a kind occurred, and some of its decisions."""

    count: int = 0
    examples: list[Example] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """What a replay found. `damaged` and `unrepeatable` lines are part of no comparison."""

    lines: int = 0
    same: int = 0
    different: int = 0
    allows_now: int = 0  # of the different ones: were denied
    damaged: int = 0
    damaged_named: list[tuple[int, str]] = field(default_factory=list)  # number of the line, what is wrong
    unrepeatable: Counter[str] = field(default_factory=Counter)  # by the words of `UNREPEATABLE`
    kinds: dict[Kind, Differences] = field(default_factory=dict)
    kinds_left_out: int = 0  # decisions of kinds beyond GROUPS_MAX
    digests: set[str] = field(default_factory=set)  # of the policies that decided then

    @property
    def ordered(self) -> list[tuple[Kind, Differences]]:
        """The kinds, most frequent first."""
        return sorted(self.kinds.items(), key=lambda item: (-item[1].count, str(item[0].principal), item[0].place))


def replay(engine: Engine, lines: Iterable[bytes], progress: Callable[[Report], None] | None = None) -> Report:
    """Decide every line of a log by an engine. `progress` is called after each PROGRESS_LINES of them."""
    report = Report()
    for number, line in enumerate(lines, 1):
        if line.isspace() or not line:
            continue
        report.lines += 1
        if progress is not None and report.lines % PROGRESS_LINES == 0:
            progress(report)
        try:
            logged = read_decision(line)
            _compare(report, engine, number, logged)
        except Unrepeatable as reason:
            report.unrepeatable[str(reason)] += 1
        except ValueError as error:
            report.damaged += 1
            if len(report.damaged_named) < DAMAGED_NAMED_MAX:
                wrong = str(error) if isinstance(error, Damaged) else f"cannot be asked: {error}"
                report.damaged_named.append((number, wrong))
    return report


def _compare(report: Report, engine: Engine, number: int, logged: LoggedDecision) -> None:
    allowed, answer = logged.decide(engine)
    if logged.digest is not None:
        report.digests.add(logged.digest)
    if allowed == logged.allowed:
        report.same += 1
        return
    report.different += 1
    report.allows_now += allowed
    kind = Kind(logged.principal, logged.place, logged.action, logged.allowed)
    found = report.kinds.get(kind)
    if found is None:
        if len(report.kinds) >= GROUPS_MAX:
            report.kinds_left_out += 1
            return
        found = report.kinds[kind] = Differences()
    found.count += 1
    if len(found.examples) < EXAMPLES_MAX:
        found.examples.append(
            Example(
                number,
                logged.id,
                logged.resource,
                logged.policies,
                tuple(sorted(answer.reasons)),
                tuple(sorted(answer.errors)),
                answer.faults,
            )
        )
