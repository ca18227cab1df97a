"""Puts characters together of which a server sends one half in one chunk and the rest in the next.

Two kinds of halves are known. A server that decodes token by token may cut a character's UTF-8 bytes,
so that the JSON of a chunk holds bytes that are no character. A server whose strings are UTF-16
(JavaScript, Java, C#) may cut a surrogate pair, as in `"\\ud83d"` and then `"\\ude00"`.
"""

import re

FIRST = 0x10FF00
"""Where in Unicode's last private area the bytes stand that are no character by themselves."""
_BYTES = re.compile("[\U0010ff80-\U0010ffff]+")
_BROKEN = re.compile("[\ud800-\udfff]")
REPLACEMENT = "\ufffd"
"""What stands for a half whose other half never came."""


def decoded(data: bytes) -> str:
    """The bytes as text. A byte that is part of no character becomes a private character."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        text = data.decode(errors="surrogateescape")
        return _BROKEN.sub(lambda found: chr(FIRST + ord(found[0]) - 0xDC00), text)


def has_halves(text: str) -> bool:
    """Whether the text has halves of characters."""
    return bool(_BYTES.search(text) or _BROKEN.search(text))


class Halves:
    """Joins the halves in the pieces of one text."""

    def __init__(self) -> None:
        self._held = ""

    def join(self, piece: str) -> str:
        """The next piece with whole characters. A half at its end is held back for the next piece."""
        text = self._held + piece
        whole = _BYTES.sub(_characters, text)
        self._held = ""
        unfinished = _BYTES.search(whole)
        if unfinished and unfinished.end() == len(whole):
            whole, self._held = whole[: unfinished.start()], unfinished[0]
        elif whole and 0xD800 <= ord(whole[-1]) < 0xDC00:
            whole, self._held = whole[:-1], whole[-1]
        return _paired(whole)

    def end(self) -> str:
        """What stands for a half that is still held back."""
        held, self._held = self._held, ""
        return REPLACEMENT if held else ""


def _characters(found: re.Match[str]) -> str:
    """The characters that a run of bytes stands for.

    The first bytes of a character at the end of the piece stay as they are: the next piece may have the
    others.
    """
    raw = bytes(ord(character) - FIRST for character in found[0])
    if found.end() == len(found.string):
        for count in range(1, min(4, len(raw) + 1)):
            if _begins_character(raw[-count:]):
                rest = "".join(chr(FIRST + byte) for byte in raw[-count:])
                return raw[:-count].decode(errors="replace") + rest
    return raw.decode(errors="replace")


def _begins_character(raw: bytes) -> bool:
    """Whether the bytes are the beginning of a character of more bytes."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data" and error.start == 0
    return False


def _paired(text: str) -> str:
    """The text with its surrogate pairs joined, and with a sign for each surrogate that is alone."""
    if not _BROKEN.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
