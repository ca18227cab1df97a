"""Whether a text has anything that a reader can see."""

import unicodedata

UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"})
"""Unicode's categories of invisible characters: controls, formats, surrogates, separators."""
ALSO_UNSEEN = frozenset(
    [
        *map(chr, (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0)),
        *map(chr, (*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))),
    ]
)
"""Further invisible characters: the empty pattern of Braille, and fillers, joiners and variation
selectors, which have Unicode's property `Default_Ignorable_Code_Point`."""


def is_blank(text: str) -> bool:
    """Whether a text is empty or has only invisible characters."""
    return all(c in ALSO_UNSEEN or unicodedata.category(c) in UNSEEN for c in text)
