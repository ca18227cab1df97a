"""A text as it looks: each character that looks like an ASCII character becomes that ASCII character.

The text keeps its length, so a position in the new text is the same position in the original text.
Texts that may hide a delimiter are searched in this form.
"""

import unicodedata

BLOCKS = (
    range(0x00A0, 0x00C0),
    range(0x0170, 0x0180),
    range(0x2070, 0x2190),
    range(0x2460, 0x2500),
    range(0xFE50, 0xFE70),
    range(0xFF00, 0xFFF0),
    range(0x1D400, 0x1D800),
)
"""Unicode's blocks of characters that are ASCII in another style, such as wide, bold or circled."""
LETTERS = (
    ("аеорсухіѕјԁһѵԛԝԍк", "aeopcyxisjdhvqwgk"),
    ("АВЕКМНОРСТХУІЅЈЗ", "ABEKMHOPCTXYISJ3"),
    ("οαρινκυχτϲϳ", "oapivkuxtcj"),
    ("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "ABEZHIKMNOPTYX"),
    ("ıɡɩſℓ", "igisl"),
)
"""Letters of Cyrillic, Greek and other alphabets, and beside them the Latin letters that look the same.
These letters have the same shape in ordinary fonts. Unicode's `confusables.txt` has many more."""
SLASHES = "⁄∕⧸╱\\"
"""Characters that look like a slash, and the backslash: JSON may write a slash as `\\/`."""
UNSEEN = "".join(map(chr, (0xAD, 0x34F, 0x61C, 0x180E, *range(0x200B, 0x2010), *range(0x202A, 0x202F))))
UNSEEN += "".join(map(chr, (*range(0x2060, 0x2070), *range(0xFE00, 0xFE10), 0xFEFF)))
"""Invisible characters that take no space. They become ZERO_WIDTH."""
ZERO_WIDTH = "\u200b"


def _table() -> dict[int, str]:
    found: dict[int, str] = {}
    for block in BLOCKS:
        for code in block:
            plain = unicodedata.normalize("NFKC", chr(code))
            if len(plain) == 1 and plain.isascii() and plain.isprintable():
                found[code] = plain
    for strange, latin in LETTERS:
        found |= {ord(a): b for a, b in zip(strange, latin, strict=True)}
    found |= {ord(c): "/" for c in SLASHES}
    return found | {ord(c): ZERO_WIDTH for c in UNSEEN}


TABLE = _table()


def as_it_looks(text: str) -> str:
    """The text as it looks, with as many characters as before."""
    return text if text.isascii() and "\\" not in text else text.translate(TABLE)
