"""Keeps a text from being read as the end of its own frame.

A prompt quotes texts that nobody vouches for between tags such as `<response 1>` and `</response 1>`.
Whatever in a text looks like one of these tags is defused: its first bracket is replaced. What looks
like a tag is one, whichever characters it is made of (`look_alikes.py`).
"""

import re
from collections.abc import Collection
from functools import cache

from actors.text.look_alikes import ZERO_WIDTH, as_it_looks

HARMLESS = "‹"
"""Replaces a bracket that could begin a tag."""
GAP = f"[\\s{ZERO_WIDTH}]*"
"""Spaces and characters that nobody sees."""
GAP_OR_SLASH = f"[/\\s{ZERO_WIDTH}]*"
BETWEEN = f"{ZERO_WIDTH}*"
"""What may be between the letters of a name."""
ENTITY = "&(?=(?:lt|#0*60|#x0*3c);"
"""A bracket as HTML writes it."""


def defuse(text: str, names: Collection[str], *, numbered: bool) -> str:
    """The text with every tag of these names defused.

    Args:
        text: the text.
        names: the names of the tags.
        numbered: whether the tags have numbers. An opening tag then counts only with a number:
            `Promise<Response>` is code, and stays.
    """
    if not names:
        return text
    kept, at = list[str](), 0
    pattern = _tags(tuple(sorted({as_it_looks(name) for name in names})), numbered)
    for bracket in pattern.finditer(as_it_looks(text)):
        kept += [text[at : bracket.start()], HARMLESS]
        at = bracket.end()
    return "".join([*kept, text[at:]])


@cache
def _tags(names: tuple[str, ...], numbered: bool) -> re.Pattern[str]:
    """Finds the bracket of each tag in a text as it looks."""
    name = f"(?:{'|'.join(BETWEEN.join(map(re.escape, each)) for each in names)})"
    if not numbered:
        tag = f"{GAP_OR_SLASH}{name}\\b"
        return re.compile(f"<(?={tag})|{ENTITY}{tag})", re.IGNORECASE)
    closing = f"{GAP}/{GAP_OR_SLASH}{name}"
    # What is between name and number ends at the next bracket, so that no text is read twice.
    in_text, in_entity = (f"{closing}|{GAP}{name}[^<>{end}]*\\d" for end in ("", "&"))
    return re.compile(f"<(?={in_text})|{ENTITY}(?:{in_entity}))", re.IGNORECASE)
