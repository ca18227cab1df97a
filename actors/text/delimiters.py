"""Keeps a text from being read as the end of its own frame.

A prompt quotes texts that are not trusted, between tags such as `<response 1>` and `</response 1>`.
Everything in a text that looks like such a tag is defused: its first bracket is replaced. It does not
matter which characters the look-alike of a tag is made of (`look_alikes.py`).
"""

import re
from collections.abc import Collection
from functools import cache

from actors.text.look_alikes import ZERO_WIDTH, as_it_looks

HARMLESS = "‹"
"""Stands in place of a bracket that could begin a tag."""
GAP = f"[\\s{ZERO_WIDTH}]*"
"""White space and invisible characters."""
GAP_OR_SLASH = f"[/\\s{ZERO_WIDTH}]*"
BETWEEN = f"{ZERO_WIDTH}*"
"""Invisible characters, which may stand between the letters of a name."""
ENTITY = "&(?=(?:lt|#0*60|#x0*3c);"
"""The beginning of a pattern for a bracket that is written as an HTML entity."""


def defuse(text: str, names: Collection[str], *, numbered: bool) -> str:
    """The text with every tag of these names defused.

    Args:
        text: the text.
        names: the names of the tags.
        numbered: whether the tags have numbers. Then an opening tag is defused only if it has a number,
            so that code such as `Promise<Response>` stays as it is.
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
    """A pattern for the first bracket of each tag, in a text that `as_it_looks` has changed."""
    name = f"(?:{'|'.join(BETWEEN.join(map(re.escape, each)) for each in names)})"
    if not numbered:
        tag = f"{GAP_OR_SLASH}{name}\\b"
        return re.compile(f"<(?={tag})|{ENTITY}{tag})", re.IGNORECASE)
    closing = f"{GAP}/{GAP_OR_SLASH}{name}"
    # The part between name and number ends at the next bracket, so that no text is searched twice.
    in_text, in_entity = (f"{closing}|{GAP}{name}[^<>{end}]*\\d" for end in ("", "&"))
    return re.compile(f"<(?={in_text})|{ENTITY}(?:{in_entity}))", re.IGNORECASE)
