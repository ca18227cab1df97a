"""The errors of OpenAI-compatible servers: their words, what HTTP status they are worth, and which of
our errors they become.

Servers report errors in many shapes, and some of them under status 200, in a stream or in place of a
stream. `fault_of` finds them. An error under status 200 counts as the status that its code, its type or
its words stand for, and as 500 if nothing says more.
"""

import html
import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from actors.engines.half_characters import decoded
from configs.errors import BadRequest, ContentFiltered, ContextTooLong, EngineError, Overloaded

RETRIED_STATUS = frozenset({408, 409, 425, 429})
"""HTTP statuses below 500 after which another attempt may succeed; from 500 on, every status is."""
MOST_WORDS = 4000
"""Most characters of a server's error that are kept."""
CONTEXT = re.compile(
    r"context_length_exceeded|exceed_context_size|maximum context length|context length \("
    r"|(exceed|longer than|larger than|overflow|too (long|large)|beyond|fit).{0,80}context"
    r"|context.{0,40}(exceed|overflow|too (small|short))"
    r"|(prompt|input|conversation) is too long|maximum prompt length|too many tokens"
    r"|token count .{0,60}exceed|reduce the length of|max_new_tokens.{0,20} must be <="
    r"|input (length|tokens).{0,60}(exceed|must be|maximum)",
    re.IGNORECASE | re.DOTALL,
)
"""Words by which a server's error shows that the conversation does not fit the context."""
FILTER = re.compile(
    r"content_filter|content_policy|responsibleaipolicy|content management policy|contentfilter"
    r"|data_inspection_failed|guardrail_intervened|prohibited_content|sensitive_words",
    re.IGNORECASE,
)
"""Words by which a server's error shows that its filter refused the conversation or the answer."""
KINDS = (
    (re.compile(r"rate.?limit|too.?many.?requests|throttl|resource_?exhausted|quota"), 429),
    (re.compile(r"overload|unavailable|at capacity|(server|engine) is busy|try again later"), 503),
    (re.compile(r"time.?d? ?out|deadline_?exceeded"), 504),
    (re.compile(r"bad gateway|bad_gateway|upstream"), 502),
    (re.compile(r"authenticat|unauthorized|invalid_?api_?key|api key"), 401),
    (re.compile(r"permission|forbidden|access_?denied"), 403),
    (re.compile(r"not_?found|notfound|does not exist"), 404),
    (re.compile(r"invalid_?request|bad_?request|invalid_?argument|validation|invalidparameter"), 400),
    (re.compile(r"insufficient.?(balance|credit)|payment"), 402),
    (re.compile(r"extra inputs|extra_forbidden|field required|not permitted"), 422),
)
"""The HTTP status that a code, a type or a text stands for; the first match counts."""


class ErrorData(bytes):
    """The data of an event that the server calls an error."""


class Fault(Exception):
    """What a server said went wrong.

    Args:
        words: the server's own words, on one line.
        status: the HTTP status, or the status that an error under status 200 is worth.
        retry_after_s: seconds that the server asks us to wait before another attempt.
        whole: the whole error, with the codes and names in it.
        is_answered: whether `status` is the status of the HTTP response.
    """

    def __init__(
        self,
        words: str,
        status: int = 500,
        retry_after_s: float = 0,
        *,
        whole: str = "",
        is_answered: bool = False,
    ) -> None:
        super().__init__(words)
        self.words = words
        self.status = status
        self.retry_after_s = retry_after_s
        self.whole = whole or words
        self.is_answered = is_answered

    @property
    def is_retriable(self) -> bool:
        """Whether another attempt may succeed."""
        return self.status >= 500 or self.status in RETRIED_STATUS

    @property
    def kind(self) -> type[EngineError | BadRequest | Overloaded]:
        """The class of our error.

        1. Overloaded for 429.
        2. ContextTooLong or ContentFiltered if the words say so, whatever other status the error has:
           servers send these errors with many statuses, 500 among them.
        3. BadRequest for 400, 413 and 422.
        4. EngineError for all others.
        """
        if self.status == 429:  # 1
            return Overloaded
        if self.status not in (401, 403, 404):  # 2
            if CONTEXT.search(self.whole):
                return ContextTooLong
            if FILTER.search(self.whole):
                return ContentFiltered
        return BadRequest if self.status in (400, 413, 422) else EngineError  # 3, 4


def fault_of(parsed: Any, *, is_error: bool = False) -> Fault | None:
    """The error that a JSON value under status 200 reports; None if it reports none.

    Args:
        parsed: the JSON of an event or of the whole response.
        is_error: whether the server calls the event an error, so that whatever the value is, it is one.
    """
    if isinstance(parsed, list) and len(parsed) == 1:  # Gemini wraps its errors
        parsed = parsed[0]
    if isinstance(parsed, dict):
        if parsed.get("error") or is_error or _is_bare_error(parsed):
            return Fault(words_of(parsed), _status_of(parsed), whole=_whole(parsed))
        return None
    return Fault(words_of(parsed), _status_of({"message": parsed})) if is_error else None


def fault_of_text(data: bytes) -> Fault:
    """The error of an event that the server calls an error and that is no JSON."""
    words = words_of_body(data) or "an error without words"
    return Fault(words, _status_of({"message": words}))


def fault_of_response(status: int, headers: Mapping[str, str], body: bytes, reason: str) -> Fault:
    """The error of a response whose status is not one of success."""
    words = words_of_body(body) or headers.get("Location", "") or reason
    parsed = _json(body)
    wait_s = retry_after_s(headers)
    if status == 413 and isinstance(parsed, dict) and _status_of(parsed) == 429:
        status = 429  # Groq: more tokens than a minute allows
    whole = words if parsed is None else _whole(parsed)
    return Fault(words, status, wait_s, whole=whole, is_answered=True)


def fault_of_page(body: bytes) -> Fault | None:
    """The error of a response with status 200 that is no answer at all, such as a gateway's web page.

    None if the body has no words.
    """
    words = words_of_body(body)
    named = re.search(r"\b(4\d\d|5\d\d)\b", words[:200])
    return Fault(words, int(named[0]) if named else 502) if words else None


def words_of_body(body: bytes) -> str:
    """The words of an error's body: JSON in any shape, a web page or plain text."""
    parsed = _json(body)
    if parsed is not None:
        return words_of(parsed)
    text = decoded(body[: 64 << 10]).removeprefix("\ufeff")
    if re.match(r"\s*<", text):
        return _words_of_page(text)
    lines = [line for line in text.splitlines() if not re.match(r":|(event|id|retry)\s*:", line)]
    return one_line("\n".join(line.removeprefix("data:") for line in lines))


def words_of(value: Any) -> str:
    """The words of an error's JSON on one line, whatever its shape; its JSON if it has no words."""
    words = list(dict.fromkeys(filter(None, _words(value, 0))))
    if words:
        return one_line(": ".join(words))
    return "" if value in (None, "", {}, []) else one_line(json.dumps(value, default=str))


def one_line(text: str) -> str:
    """The text on one line, without what a terminal would not print, and cut to MOST_WORDS."""
    text = re.sub(r"[\x00-\x1f\x7f-\x9f\s]+", " ", text).strip()
    return text.encode("utf-8", "replace").decode()[:MOST_WORDS]


def retry_after_s(headers: Mapping[str, str]) -> float:
    """The seconds that a response asks to wait; 0 if it asks for none, or for no time that there is.

    `Retry-After` has seconds or a date (RFC 9110, section 10.2.3). OpenAI and Azure also send
    `retry-after-ms`.
    """
    milliseconds = _seconds(headers.get("retry-after-ms", "")) / 1000
    return milliseconds or _seconds(headers.get("Retry-After", ""))


def _seconds(header: str) -> float:
    try:
        seconds = float(header)
    except ValueError:
        try:
            date = parsedate_to_datetime(header)
            date = date if date.tzinfo else date.replace(tzinfo=UTC)
            seconds = date.timestamp() - time.time()
        except (ValueError, TypeError, IndexError, OverflowError):
            return 0
    return max(0.0, seconds) if math.isfinite(seconds) else 0


def _is_bare_error(parsed: dict[str, Any]) -> bool:
    """Whether an object without `error` and without choices reports an error.

    1. FastChat, LMDeploy, old vLLM: `{"object": "error", "message": ..., "code": ...}`.
    2. FastAPI: `{"detail": ...}`; RFC 9457: `{"title": ..., "status": ..., "detail": ...}`.
    3. DashScope and gateways: `{"code": ..., "message": ...}`, `{"statusCode": ..., "message": ...}`.
    4. Cloudflare: `{"errors": [...]}`; Baidu: `{"error_code": ..., "error_msg": ...}`; MiniMax:
       `{"base_resp": {"status_code": ..., "status_msg": ...}}`.
    """
    if parsed.get("choices") or parsed.get("usage"):
        return False
    if "error" in (parsed.get("object"), parsed.get("type"), parsed.get("status")):  # 1
        return True
    if isinstance(message := parsed.get("message"), dict) and _is_bare_error(message):
        return True
    has_words = any(parsed.get(name) for name in ("message", "msg", "Message"))
    names = ("code", "status", "statusCode", "status_code", "error_type")
    has_code = any(parsed.get(name) not in (None, "", 0, 200, "200", "ok", "success") for name in names)
    base = parsed.get("base_resp")
    return bool(
        parsed.get("detail")  # 2
        or (has_words and has_code)  # 3
        or parsed.get("errors")  # 4
        or parsed.get("error_code")
        or parsed.get("error_msg")
        or (isinstance(base, dict) and base.get("status_code"))
    )


def _words(value: Any, depth: int) -> Iterator[str]:
    """The texts for people in an error, the outer ones first."""
    if isinstance(value, str):
        inner = _json(value.encode("utf-8", "replace")) if value.lstrip()[:1] in ("{", "[") else None
        if inner is None:
            yield value.strip()
        else:
            yield from _words(inner, depth + 1)
    elif depth > 6:
        return
    elif isinstance(value, list):
        for each in value[:8]:
            yield from _words(each, depth + 1)
    elif isinstance(value, dict):
        place = value.get("loc")
        if isinstance(place, list):
            yield ".".join(map(str, place))
        for name in (
            *("title", "message", "msg", "Message", "detail", "error", "errors", "error_msg"),
            *("status_msg", "base_resp", "reason", "raw", "metadata", "innererror"),
        ):
            yield from _words(value.get(name), depth + 1)
        if depth < 3 and not any(value.get(name) for name in ("message", "msg", "detail", "error")):
            yield from (str(value[n]) for n in ("code", "type") if isinstance(value.get(n), str | int))


def _status_of(parsed: dict[str, Any]) -> int:
    """The HTTP status that an error is worth: by a code, else a type, else its words, else 500."""
    inner = parsed.get("error")
    places = [place for place in (inner, parsed, parsed.get("base_resp")) if isinstance(place, dict)]
    names = ("code", "status", "statusCode", "status_code", "http_status", "error_code")
    codes = [place.get(name) for place in places for name in names]
    for code in codes:
        if (status := _numeric_status(code)) is not None:
            return status
    types = [place.get("type") for place in places]
    for said in [*codes, *types, words_of(parsed)]:
        if isinstance(said, str):
            for pattern, status in KINDS:
                if pattern.search(said.lower()):
                    return status
    return 500


def _numeric_status(code: Any) -> int | None:
    """The status in a code: 429, "429", or 42901 as FastChat writes it."""
    if isinstance(code, bool) or not re.fullmatch(r"[45]\d\d(\d\d)?", str(code)):
        return None
    return int(str(code)[:3])


def _words_of_page(page: str) -> str:
    """The title of a web page, or its text if it has no title."""
    title = re.search(r"<title[^>]*>(.*?)</title", page, re.IGNORECASE | re.DOTALL)
    if title and title[1].strip():
        return one_line(html.unescape(title[1]))
    text = re.sub(r"<(script|style|head)\b.*?</\1\s*>", " ", page, flags=re.IGNORECASE | re.DOTALL)
    return one_line(html.unescape(re.sub(r"<[^<>]*>", " ", text)))


def _whole(parsed: Any) -> str:
    return json.dumps(parsed, default=str, ensure_ascii=False)[:MOST_WORDS]


def _json(body: bytes) -> Any:
    try:
        parsed = json.loads(decoded(body).removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict | list) else None
