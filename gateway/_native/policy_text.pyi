"""Where the statements of a policy text begin and end, found in one pass (`_native/policy_text.pyx`)."""

def split_statements(text: str) -> list[tuple[int, int, int, int]]:
    """Give (start, end, line, column) of each statement: from its first character to behind its `;`.

    Strings and comments are passed over, white space and comments between statements belong to none. What follows the
    last `;` is a statement without end, where it is more than white space and comments. Offsets count characters from
    0, lines and columns from 1.
    """
