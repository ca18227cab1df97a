"""The ID of a request, by which clients, proxies and logs find the request again."""

import re
import uuid

from starlette.types import Scope

REQUEST_ID = "slimmoa.request_id"
"""Name of the entry of a request's scope that holds the ID."""
HEADER = b"x-request-id"
PLAIN_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
"""IDs of clients that are taken over. They have no blanks or quotes, so that an ID cannot forge a part
of a log's line."""


def request_id(scope: Scope) -> str:
    """The ID of a request: the client's own `x-request-id` if there is exactly one that is short and
    plain, or a new one. The same request always gets the same ID. OpenAI's clients show the ID as
    `_request_id`."""
    if REQUEST_ID not in scope:
        sent = [value for name, value in scope.get("headers", ()) if name == HEADER]
        is_plain = len(sent) == 1 and PLAIN_ID.fullmatch(sent[0])
        scope[REQUEST_ID] = sent[0].decode("ascii") if is_plain else uuid.uuid4().hex
    found: str = scope[REQUEST_ID]
    return found
