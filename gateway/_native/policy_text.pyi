"""Policy text as pieces: statements, tokens, and what two texts share (`_native/policy_text.pyx`)."""

def split_statements(
    text: str, start: int = 0, line: int = 1, column: int = 1, stop: int = -1
) -> list[tuple[int, int, int, int]]:
    """Give (start, end, line, column) of each statement: from its first character to behind its `;`.

    Strings and comments are passed over, white space and comments between statements belong to none. What follows the
    last `;` is a statement without end, where it is more than white space and comments. Offsets count characters from
    0, lines and columns from 1. Reading begins at `start`, which stands at `line` and `column` and lies between two
    statements, and ends after the first statement that ends at `stop` or behind it, unless `stop` is negative.
    """

def tokenize(text: str) -> tuple[list[str], list[int]]:
    """Give the tokens' texts, and the offsets behind them, without white space and comments; the last one is empty.

    What begins no token of the language is a token of one character, so that every text has tokens.
    """

def shared_ends(old: str, new: str) -> tuple[int, int]:
    """Give how many characters both texts begin with, and how many further ones both end with.

    Texts of which one has characters beyond the other's storage width (a first emoji, say) share nothing.
    """
