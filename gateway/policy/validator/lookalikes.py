"""Names and texts that may not be what they look like: characters that turn the direction, letters of mixed scripts.

After Unicode UTS 39 (mixed scripts) and the advice of CVE-2021-42574 ("Trojan source"). A letter's script is read from
its name, as Python's tables have no scripts: "CYRILLIC SMALL LETTER A". That tells the scripts that are mixed up in
practice; texts of ASCII, which almost all are, cost one look.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from gateway._native.uid import EntityUid, quoted
from gateway.policy.language import tree
from gateway.policy.validator.report import Findings

_TURNING: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

# Written together in one language: UTS 39 §5.1 counts them as one script.
_HAN: Final = frozenset(("CJK", "KANGXI", "IDEOGRAPHIC"))
_JAPANESE: Final = frozenset(("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"))
_TOGETHER: Final = (
    _HAN | _JAPANESE,
    _HAN | {"HANGUL"},
    _HAN | {"BOPOMOFO"},
)


def check_lookalikes(statement: tree.Statement, findings: Findings) -> None:
    """Warn of every name and text of a statement that may deceive its reader."""
    if statement.text and statement.text.isascii() and "\\" not in statement.text:
        return  # nothing but printable ASCII can be in its names and texts
    for text, is_name, node in _texts(statement):
        if not text.isascii() or (is_name and not text.isprintable()):
            _check(text, is_name, node, findings)


def _check(text: str, is_name: bool, node: tree.Node, findings: Findings) -> None:
    what = "name" if is_name else "text"
    if not _TURNING.isdisjoint(text):
        message = f"the {what} `{quoted(text)}` has characters that turn the direction of writing"
        findings.add("turned_text", message, "remove them: what is shown is not what is compared", node)
        return
    unusual = next((c for c in text if not _is_usual(c)), None) if is_name else None
    if unusual is not None:
        message = f"the name `{quoted(text)}` has the unusual character `U+{ord(unusual):04X}`"
        findings.add("unusual_character", message, "names with such characters are easily confused", node)
    elif len(scripts := _scripts(text)) > 1:
        message = f"the {what} `{quoted(text)}` mixes letters of several scripts: {', '.join(sorted(scripts))}"
        findings.add("mixed_scripts", message, "letters of different scripts look the same", node)


def _texts(statement: tree.Statement) -> Iterator[tuple[str, bool, tree.Node]]:
    """Give every text, whether it is a name, and where it stands."""
    for constraint in (statement.principal, statement.action, statement.resource):
        for uid in constraint.entities:
            yield uid.id, True, constraint
    waiting: list[tree.Expr] = [condition.body for condition in reversed(statement.conditions)]
    while waiting:
        node = waiting.pop()
        match node:
            case tree.Literal(str() as text):
                yield text, False, node
            case tree.Literal(EntityUid() as uid):
                yield uid.id, True, node
            case tree.GetAttr(_, name):
                yield name, True, node
            case tree.HasAttr(_, path):
                for name in path:
                    yield name, True, node
            case tree.Like(_, pattern):
                yield "*".join(piece or "" for piece in pattern), False, node
            case tree.RecordOf(items):
                for name, _ in items:
                    yield name, True, node
        waiting += reversed(list(tree.children(node)))


def _is_usual(character: str) -> bool:
    """Tell whether a character is one of those that UTS 39 allows in identifiers, or printable ASCII."""
    if character.isascii():
        return character.isprintable()
    # Allowed are letters, marks and digits that compatibility normalisation leaves as they are.
    return unicodedata.category(character)[0] in "LMN" and unicodedata.normalize("NFKC", character) == character


@lru_cache(4096)
def _script(character: str) -> str:
    """Give the script of a letter, "" for what belongs to all of them: digits, signs, marks."""
    if not character.isalpha():
        return ""
    word = unicodedata.name(character, "").split(" ")[0]
    return "LATIN" if word in ("FEMININE", "MASCULINE", "FULLWIDTH") else "" if word in ("MODIFIER", "MICRO") else word


def _scripts(text: str) -> frozenset[str]:
    """Give the scripts of a text's letters, one where they belong together."""
    found = frozenset(map(_script, text)) - {""}
    return frozenset(("",)) if any(found <= together for together in _TOGETHER) else found
