"""The policy machine for Python: programs, rules, and the decider that runs them.

`OPCODES`, `FUNCTIONS` and `ERRORS` are the machine's own lists (`_native/opcodes.h`), by number.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple, Self, final

from typing_extensions import disjoint_base

from gateway._native.entities import EntityStore
from gateway._native.uid import EntityUid

__pyx_capi__: Final[dict[str, object]]  # what `vm.pxd` offers to other compiled modules

class Opcode(NamedTuple):
    """One instruction of the machine. `pops` is None where an operand says how many."""

    name: str
    operands: str
    pops: int | None
    pushes: int
    meaning: str

OPCODES: Final[tuple[Opcode, ...]]
FUNCTIONS: Final[tuple[tuple[str, int], ...]]  # name, count of arguments
ERRORS: Final[tuple[tuple[str, str], ...]]  # code, meaning
FORMAT: Final[int]  # of compiled programs
STEPS_MAX: Final[int]  # of one decision
MEMORY_MAX: Final[int]  # bytes of one decision

@final
class Program:
    """A verified program. Raises ValueError, with what is wrong, for an image that the machine must not run."""

    def __new__(cls, image: bytes) -> Program: ...
    @property
    def image(self) -> bytes: ...
    @property
    def code_count(self) -> int:
        """How many instructions it has."""

    @property
    def is_policy(self) -> bool:
        """True for the conditions of a policy, False for an expression."""

    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[object, tuple[bytes]]: ...

@final
class Rule:
    """A policy: its head (`gateway/policy/compiler/scopes.py` has the format) and the program of its conditions.

    Raises ValueError for a malformed head and for the program of an expression.
    """

    def __new__(cls, head: bytes, program: Program) -> Rule: ...
    @property
    def head(self) -> bytes: ...
    @property
    def program(self) -> Program: ...
    @property
    def permits(self) -> bool:
        """True for `permit`, False for `forbid`."""

    def __reduce__(self) -> tuple[object, tuple[bytes, Program]]: ...

@final
class Request:
    """A request whose entities were looked up and whose context was converted: made by `Decider.prepare`.

    It can be decided by every decider of the same store, again and again; where entities changed meanwhile it is
    looked up anew. It belongs to one thread at a time.
    """

@final
class Answer:
    """What was decided: `allowed`, and which policies decided (`reasons`), erred (`errors`) or hit a limit (`faults`).

    `reasons` are the satisfied forbids if there is one, else the satisfied permits. `errors` are policies that could
    not be evaluated, and so counted as not satisfied. `faults` are codes of limits that were hit, or
    `entity_not_resident`: then the request is denied, whatever the policies say.

    `missing` and `flip_ms` say how it was decided, and are no part of what the answer is: equal answers may differ
    in them.
    """

    __match_args__: Final = ("allowed", "reasons", "errors", "faults")
    def __new__(
        cls, allowed: bool, reasons: frozenset[str], errors: frozenset[str], faults: tuple[str, ...] = ()
    ) -> Answer: ...
    @property
    def allowed(self) -> bool: ...
    @property
    def reasons(self) -> frozenset[str]: ...
    @property
    def errors(self) -> frozenset[str]: ...
    @property
    def faults(self) -> tuple[str, ...]: ...
    @property
    def missing(self) -> EntityUid | None:
        """With the fault `entity_not_resident`: the entity to fetch first. The next answer may name another one."""

    @property
    def flip_ms(self) -> int | None:
        """How long the comparisons by `<`, `<=`, `>`, `>=` that were made between datetimes hold, in ms.

        One of the two may move on by less than this, and each comparison comes out as it did. At least 1; None where
        no such comparison was made. What else a policy does with a datetime is not in it.
        """

    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[object, tuple[bool, frozenset[str], frozenset[str], tuple[str, ...]]]: ...

@disjoint_base
class Decider:
    """Policies bound to a store of entities: an immutable snapshot.

    `rules` and `ids` have the same order; ids are distinct. Each decision takes at most `steps_max` steps and
    `MEMORY_MAX` bytes: what goes beyond is a fault and denies.
    """

    def __new__(
        cls, store: EntityStore, rules: Iterable[Rule], ids: Iterable[str], *, steps_max: int = ...
    ) -> Self: ...
    @property
    def store(self) -> EntityStore: ...
    @property
    def ids(self) -> tuple[str, ...]: ...
    def allows(
        self, principal: EntityUid, action: EntityUid, resource: EntityUid, context: dict[str, Any] | None = None
    ) -> bool:
        """Return whether the request is allowed: the fast way, without diagnostics.

        `context` is a dict of values, or None for an empty one. Raises TypeError or ValueError for a context that is
        none.
        """

    def authorize(
        self, principal: EntityUid, action: EntityUid, resource: EntityUid, context: dict[str, Any] | None = None
    ) -> Answer:
        """Return the Answer: the decision with the policies that made it, and those that erred."""

    def prepare(
        self,
        principal: EntityUid,
        action: EntityUid,
        resource: EntityUid,
        context: dict[str, Any] | None = None,
        *,
        overlays: Mapping[EntityUid, tuple[Mapping[str, Any], Iterable[EntityUid]]] | None = None,
    ) -> Request:
        """Return a Request that `decide` and `answer` take: its entities looked up, its context converted.

        `overlays` defines principal, action or resource for this request alone: by uid, (attributes, parents). What is
        given goes before what the store has of the entity, by whatever way a policy reaches it. What the store has
        below the entity stays where it is.
        `context` is kept, and must not change.
        """

    def decide(self, request: Request) -> bool:
        """Return whether a prepared request is allowed."""

    def answer(self, request: Request) -> Answer:
        """Return the Answer to a prepared request."""

    def trace(
        self, request: Request
    ) -> tuple[bool, list[tuple[str, Literal["head", "unsatisfied", "satisfied", "error", "fault"]]], str | None]:
        """Decide a prepared request as `decide` does, and say how: (allowed, looks, fault).

        `looks` are the policies that were looked at, in the order in which they were: (id, outcome). `head`: it does
        not hold, so that the conditions were not run. `fault` is the code of a limit that was hit, or of an entity that
        must be fetched, else None.
        """

    def lacks(self, request: Request) -> EntityUid | None:
        """Return the entity that must be fetched before a door can decide a prepared request; None where it can.

        Doors look at cheap clauses first, so it may be another one than `Answer.missing`.
        """

    def decide_all(self, requests: list[Request]) -> list[bool]:
        """Return whether each of several prepared requests is allowed, in their order; releases the GIL meanwhile."""

    def decide_for(self, like: Request, resource: EntityUid, context: dict[str, Any] | None = None) -> bool:
        """Return whether `like`, a prepared request, is allowed for another resource and context.

        Its principal and action are looked up, and what they define converted, once for many questions.
        """

    def allows_like(
        self, like: Request, resource_type: str, resource_id: bytes, texts: dict[str, bytes] | None = None
    ) -> bool:
        """Return whether `like` with another resource, and a context of texts, is allowed: as the front door asks.

        Raises ValueError for what is no text, or too large.
        """

    def run_each(
        self, request: Request
    ) -> list[tuple[Literal["principal", "action", "resource"] | None, str | None, bool, int]]:
        """Run every policy alone, without the index, in the order of its text.

        Returns for each, in the order of `ids`, (head, code, satisfied, pc): the part of its head that does not hold
        (`principal`, `action`, `resource`) or None; the code of its error or fault, or None; whether it is satisfied;
        the instruction that failed, or that ended it.
        """

    def candidates(
        self, principal: EntityUid | None, action: EntityUid, resource: EntityUid | None = None
    ) -> list[tuple[int, bool]]:
        """Return (number, is sure) of each policy whose head can hold for these; None: whoever, or whatever, it is.

        Not sure is a head that asks what one of them is in, where that must be fetched first.
        """

    def evaluate(self, program: Program, request: Request) -> tuple[str | None, Any, int]:
        """Run the program of an expression; return (code, value, pc): code is None where there is a value."""

    def __len__(self) -> int: ...

def run_expression(
    program: Program,
    store: EntityStore,
    principal: EntityUid | None,
    action: EntityUid | None,
    resource: EntityUid | None,
    context: dict[str, Any] | None,
) -> tuple[str | None, Any, int]:
    """Run the program of an expression; return (code, value, pc): code is None where there is a value.

    A variable that is None is unknown: reading it is the fault `internal_fault`.
    """

def fold(image: bytes) -> bytes | None:
    """Run the program of an expression without variables; return its value as an encoded constant.

    None where it has no value, or one that does not fold (entities keep their instructions).
    """
