"""Who may use the endpoint, and how much each key may ask for. A recipe never contains the keys."""

import ipaddress
from typing import Annotated

from pydantic import Field

from configs.base import Many, Name, Seconds, Strict

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Origin = Annotated[str, Field(pattern=r"^(\*|https?://[A-Za-z0-9.\[\]:-]+)$")]


class Allowance(Strict):
    """Limits of one key; where none is given there is none. Each of several ingress replicas applies
    its part of them, rounded up."""

    concurrency: Count | None = None
    """Answers in work at a time; a further request is refused at once (429)."""
    requests_per_minute: Count | None = None
    """Requests in a minute, all at once or spread. Unused requests are kept for one minute at most."""
    tokens_per_minute: Count | None = None
    """Tokens in a minute, those of all calls and their prompts (`usage.total_tokens`). An answer is
    charged its max_tokens when it begins and the difference when it ends, so a key may be in debt."""
    max_tokens: Count | None = None
    """Most tokens of one answer. A request for more is refused (400); a request that gives no number
    gets at most this."""
    models: Many[Name] | None = None
    """Models that the key may ask, the mixture's name among them; by default all."""

    def over(self, base: "Allowance") -> "Allowance":
        """These limits, completed by those of `base` where these have none."""
        return Allowance.model_validate(base.model_dump() | self.model_dump(exclude_none=True))


class Access(Strict):
    """Who may use the endpoint. Without keys only this machine may: requests over any other interface
    are refused (403), unless `open` is set."""

    keys_file: str | None = Field(None, min_length=1)
    """File of API keys as hashes (`slimmoa keys new` writes its lines); a relative path counts from
    the recipe's folder. Every node with an ingress needs the file. Keys may also be given in the
    environment variable SLIMMOA_API_KEYS, separated by commas."""
    reload_s: Seconds = 5
    """A change of that file takes effect within this time."""
    open: bool = False
    """Answer everybody who reaches the port, without a key."""
    cors_origins: Many[Origin] = ()
    """Origins (`https://chat.example.org`) whose web pages may call the API from a browser; `*` for
    all. By default none."""
    allowance: Allowance = Allowance()
    """Limits of a key as far as its own line has none; without keys, of all callers together."""


def is_loopback(host: str) -> bool:
    """Whether a host, given by name or address, can only be this machine. A name other than `localhost`
    may stand for any machine, so the answer is no."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
