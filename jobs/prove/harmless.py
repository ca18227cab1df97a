"""Makes the texts of models and users harmless to read on a page, and cuts them. Pure.

The template escapes HTML. The characters here are those that escaping leaves: marks that turn the
direction of the text around them, and characters that nobody sees.
"""

import unicodedata

SHOWN_CHARACTERS = 2000
"""A text of an example is cut after so many characters."""
TITLE_CHARACTERS = 100
"""The title of an example is cut after so many characters."""
HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Categories of characters that nobody sees: control characters, marks of direction, half characters,
and separators of lines."""
KEPT = "\n\t\u200c\u200d"
"""What stays of these: ends of lines, tabs, and the two joiners that emojis and some scripts need."""


def harmless(text: str) -> str:
    """The text, in which each hidden character is replaced by its number, such as [U+202E]."""
    return "".join(_seen(each) for each in text.replace("\r\n", "\n"))


def cut(text: str) -> str:
    """The harmless text; if it is longer than SHOWN_CHARACTERS, its start and a note that says so."""
    if len(text) <= SHOWN_CHARACTERS:
        return harmless(text)
    return (
        f"{harmless(text[:SHOWN_CHARACTERS])} … [cut here: the first {SHOWN_CHARACTERS:,} of "
        f"{len(text):,} characters are shown]"
    )


def title(text: str) -> str:
    """The start of a text on one line, with `…` where it is cut."""
    line = " ".join(text[: 10 * TITLE_CHARACTERS].split())
    return harmless(line if len(line) <= TITLE_CHARACTERS else f"{line[:TITLE_CHARACTERS]}…")


def _seen(each: str) -> str:
    if each in KEPT or unicodedata.category(each) not in HIDDEN:
        return each
    return f"[U+{ord(each):04X}]"
