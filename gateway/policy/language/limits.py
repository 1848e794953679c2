"""What the language's readers accept at most. Each limit has a code of its own when it is hit."""

from __future__ import annotations

from typing import Final

TEXT_CHARACTERS_MAX: Final = 32 * 1024 * 1024  # of one text: 100,000 policies and more
STATEMENTS_MAX: Final = 200_000  # of one text
STATEMENT_CHARACTERS_MAX: Final = 1024 * 1024  # of one policy
NESTING_MAX: Final = 80  # brackets within brackets, `if` within `if`
CHAIN_MAX: Final = 80  # operands of `+`, `-`, `*` and members in a row: they nest to the left
OPERANDS_MAX: Final = 10_000  # of one chain of `&&` or `||`, items of one set, fields of one record
JSON_NESTING_MAX: Final = 160  # of expressions in policy JSON: chains nest there as well
FAULTS_MAX: Final = 20  # told of one text
