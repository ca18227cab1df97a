"""Whether a text has anything that a reader can see."""

import unicodedata

UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"})
"""Unicode's categories of characters that show nothing: controls, formats, surrogates and spaces."""
ALSO_UNSEEN = frozenset(
    [
        *map(chr, (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0)),
        *map(chr, (*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))),
    ]
)
"""Further characters that show nothing: fillers, joiners and variation selectors, which Unicode calls
`Default_Ignorable_Code_Point`, and the empty pattern of Braille."""


def is_blank(text: str) -> bool:
    """Whether a text is empty or has only characters that nobody sees."""
    return all(c in ALSO_UNSEEN or unicodedata.category(c) in UNSEEN for c in text)
