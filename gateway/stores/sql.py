"""Programs for an SQL database: written once, run in a thread on SQLite and by a driver of coroutines on PostgreSQL.

A program is a generator: it yields what it asks and is sent the answer. Whoever runs it does so within one transaction
and one deadline, and may run it again from its beginning, so that it does nothing but ask. What it asks is SQL text
with `:name` for parameters that both databases read, or a statement of SQLAlchemy's Core.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from gateway.stores.base import Revision
from gateway.stores.pools import PoolState

if TYPE_CHECKING:
    from sqlalchemy import Executable
    from sqlalchemy.engine import Dialect

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """One statement and its parameters. Statements that live as long as the program's code are compiled once."""

    statement: str | Executable
    parameters: Mapping[str, Any]
    kept: bool = True  # False for one that was made for this question


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows, and how many rows were changed."""

    rows: Sequence[tuple[Any, ...]]
    count: int

    @property
    def row(self) -> tuple[Any, ...] | None:
        """The first row, None where there is none."""
        return self.rows[0] if self.rows else None


Program = Generator[Ask, Answer, T]


def ask(statement: str | Executable, /, **parameters: Any) -> Ask:
    """Return a question that is asked again and again, with other parameters."""
    return Ask(statement, parameters)


def ask_once(statement: Executable) -> Ask:
    """Return a question that was made for this occasion, its parameters in it."""
    return Ask(statement, {}, kept=False)


class SQLDatabase(Protocol):
    """A database with the tables of `gateway.stores.schema`.

    Every method ends within a deadline and raises StoreUnavailable for whatever goes wrong in the database; what the
    program itself raises ends its transaction without effect and passes.
    """

    @property
    def shared(self) -> str:
        """Who sees the same: "machine" or "network"."""

    @property
    def revision(self) -> Revision:
        """A place after all that was written through this object."""

    async def read(self, program: Callable[[], Program[T]], after: Revision = "") -> T:
        """Run a program that only reads; it sees all that was written here, and everything before `after`."""

    async def write(self, program: Callable[[], Program[T]], *, durable: bool = True) -> T:
        """Run a program in one transaction. When this has returned, what it wrote is durable.

        `durable=False`: all see it, but a power cut may take it, unless something durable was written after it.
        """

    def pools(self) -> Sequence[PoolState]: ...

    async def close(self) -> None:
        """Release everything. Never raises."""


class Compiler:
    """Turns what is asked into the text and the parameters that one database's driver takes."""

    def __init__(self, dialect: Callable[[], Dialect], text: Callable[[str], str]) -> None:
        """`text` turns SQL with `:name` into what the driver takes."""
        self._new_dialect = dialect
        self._dialect: Dialect | None = None
        self._text = text
        self._texts: dict[str, str] = {}
        self._compiled: dict[int, tuple[Executable, Any, str]] = {}

    def compile(self, asked: Ask) -> tuple[str, Mapping[str, Any]]:
        if isinstance(asked.statement, str):
            text = self._texts.get(asked.statement)
            if text is None:
                text = self._texts[asked.statement] = self._text(asked.statement)
            return text, asked.parameters
        known = self._compiled.get(id(asked.statement))
        if known is not None:
            _, compiled, text = known
        else:
            if self._dialect is None:
                self._dialect = self._new_dialect()
            # Values of IN are spelled out only where they are those of this question alone.
            options = {} if asked.kept else {"render_postcompile": True}
            compiled = asked.statement.compile(dialect=self._dialect, compile_kwargs=options)  # type: ignore[attr-defined]
            text = str(compiled)
            if asked.kept:
                self._compiled[id(asked.statement)] = (asked.statement, compiled, text)
        return text, compiled.construct_params(dict(asked.parameters))
