"""What the schema readers accept at most."""

from __future__ import annotations

from typing import Final

TEXT_CHARACTERS_MAX: Final = 8 * 1024 * 1024
DECLARATIONS_MAX: Final = 20_000  # entities, actions and types of one text
NESTING_MAX: Final = 60  # of types: sets and records within each other, common types within each other
FAULTS_MAX: Final = 20  # told of one schema
