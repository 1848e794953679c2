"""What the schema readers accept at most."""

from __future__ import annotations

from typing import Final

TEXT_CHARACTERS_MAX: Final = 8 * 1024 * 1024
DECLARATIONS_MAX: Final = 20_000  # entities, actions and types of one text
NESTING_MAX: Final = 60  # of one type as written: sets and records within each other
TYPE_DEPTH_MAX: Final = 100  # the same with common types replaced by what they stand for
TYPE_PARTS_MAX: Final = 100_000  # of one type, common types written out wherever they are named
ANCESTORS_MAX: Final = 2_000_000  # pairs of a type, or an action, and one above it
FAULTS_MAX: Final = 20  # told of one schema
