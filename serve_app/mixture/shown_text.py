"""How much of a growing proposal has been sent, over all of its attempts. Pure."""


class ShownText:
    """The part of a proposal that was sent as `ProposalDelta`, over all of its attempts."""

    def __init__(self) -> None:
        self._sent: list[str] = []
        self._left = ""
        """The text that was sent before this attempt and that the attempt has not repeated yet."""
        self._is_same = True
        """Whether the attempt has repeated the text so far."""
        self._has_thought = False
        """Whether the attempt has written reasoning."""
        self.first_s: float | None = None
        """When the attempt had its first token, in seconds since the layer began."""

    def begin(self) -> None:
        """Begin an attempt."""
        self.first_s = None
        self._left = "".join(self._sent)
        self._is_same = True
        self._has_thought = False

    def begins_to_think(self, text: str) -> bool:
        """Whether the attempt writes its first reasoning now, and the proposal has no text yet.

        Args:
            text: the text that comes together with the reasoning.
        """
        if self._has_thought:
            return False
        self._has_thought = True
        return not (text.strip() or "".join(self._sent).strip())

    def extend(self, text: str) -> str:
        """The part of the attempt's next text that is to be sent now: the part beyond the text that was
        sent before. It is "" if the attempt differs from that text."""
        repeated, left = text[: len(self._left)], self._left[: len(text)]
        self._left = self._left[len(text) :]
        self._is_same = self._is_same and repeated == left
        if not self._is_same:
            return ""
        more = text[len(repeated) :]
        self._sent.append(more)
        return more
