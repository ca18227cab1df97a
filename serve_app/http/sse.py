"""Server-sent events in the form that the strictest readers take.

The standard (WHATWG HTML, 9.2) lets a stream have comments, and JSON lets a text have any character but
control characters. Some readers take less:

1. OpenAI's Go client before 3.43 reads a comment and the blank line behind it as an event without data,
   and ends there. So no block of lines consists of comments alone: a comment is the first line of the
   next event.
2. A reader that looks only at the first line of each block would miss an event behind a comment. So the
   event behind a sign of life carries nothing.
3. Readers that split a text into lines by Unicode's rules (Python's `str.splitlines`, and httpx with
   it) end a line within the JSON. So SEPARATORS are written as JSON's escapes.
"""

COMMENT = ": keep-alive\n"
"""A line that readers skip. Bytes keep proxies from closing a stream that is long silent."""
SEPARATORS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}
"""Characters that end a line for Unicode, with their escapes. JSON itself escapes all others: \\n, \\r,
\\v, \\f and \\x1c to \\x1e."""


def in_one_line(json: str) -> str:
    """The same JSON without a character at which a reader of lines could split it."""
    # Nearly all texts are done here. `isascii` looks at a flag of the text, `in` at each character.
    if json.isascii() or not ("\u2028" in json or "\u2029" in json or "\x85" in json):
        return json
    return json.translate(SEPARATORS)


def sse_event(json: str) -> str:
    """The event that carries some JSON."""
    return f"data: {in_one_line(json)}\n\n"
