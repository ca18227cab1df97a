"""Who may come in, and how much each may ask for. Keys themselves never stand in a recipe."""

import ipaddress
from typing import Annotated

from pydantic import Field

from configs.base import Many, Name, Seconds, Strict

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Origin = Annotated[str, Field(pattern=r"^(\*|https?://[A-Za-z0-9.\[\]:-]+)$")]


class Allowance(Strict):
    """How much one key may ask for; what is not stated is not limited. Of several ingress
    replicas each gives out its part of it, rounded up."""

    concurrency: Count | None = None
    """Answers in work at a time; a further request is refused at once (429)."""
    requests_per_minute: Count | None = None
    """Requests in a minute, all at once or spread; one that is not used waits a minute at most."""
    tokens_per_minute: Count | None = None
    """Tokens in a minute, of all calls and of prompts too: `usage.total_tokens`. An answer's
    max_tokens are taken when it begins, the rest when it ends, so a minute may begin in debt."""
    max_tokens: Count | None = None
    """Most tokens of one answer: a request for more is refused (400), one that does not say gets
    no more."""
    models: Many[Name] | None = None
    """Models that may be asked, the mixture's name among them; by default all."""

    def over(self, base: "Allowance") -> "Allowance":
        """This, and `base` where this states nothing."""
        return Allowance.model_validate(base.model_dump() | self.model_dump(exclude_none=True))


class Access(Strict):
    """Who may come in. Without keys only this machine may: requests over any other interface are
    refused (403), unless `open` says otherwise."""

    keys_file: str | None = Field(None, min_length=1)
    """File of API keys as hashes (`slimmoa keys new` writes its lines); a relative path counts from
    the recipe's folder. It has to be there on every node with an ingress. Keys also come from the
    environment: SLIMMOA_API_KEYS, separated by commas."""
    reload_s: Seconds = 5
    """A change of that file is seen after this time."""
    open: bool = False
    """Answer everybody who reaches the port, without a key."""
    cors_origins: Many[Origin] = ()
    """Origins (`https://chat.example.org`) whose web pages may call the API from a browser; `*` for
    all. By default none."""
    allowance: Allowance = Allowance()
    """What a key may ask for where its own line states nothing; without keys, all callers together."""


def is_loopback(host: str) -> bool:
    """Whether a host, by name or address, can only be this machine. A name other than localhost can be
    anything, so it is not."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
