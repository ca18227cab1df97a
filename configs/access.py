"""The settings of access: who may use the endpoint, and how much each API key may ask for.

A recipe never contains the keys.
"""

import ipaddress
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from configs.base import NO_KEYS, Many, Name, Seconds, Strict, meant

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Origin = Annotated[
    str,
    Field(
        pattern=meant(
            r"^(\*|https?://[A-Za-z0-9.\[\]:-]+)$",
            "* or a scheme and a host, such as https://chat.example.org, without a path",
        )
    ),
]


def _require_name(value: str) -> str:
    if value.startswith("sk-"):
        raise PydanticCustomError("secret", NO_KEYS)
    return value


KeyName = Annotated[
    str,
    AfterValidator(_require_name),
    Field(
        pattern=meant(
            r"^[A-Za-z0-9][A-Za-z0-9._\[\]-]{0,63}$",
            "the name of an API key: letters, digits, '.', '_' and '-'",
        )
    ),
]


class Allowance(Strict):
    """Limits of one API key. A limit that is not given does not exist. If several ingress replicas run,
    each replica applies its part of every limit, rounded up."""

    concurrency: Count | None = None
    """Most answers in work at a time. A further request is refused at once (429)."""
    requests_per_minute: Count | None = None
    """Most requests in a minute, all at once or spread. An unused request lasts one minute at most."""
    tokens_per_minute: Count | None = None
    """Most tokens in a minute: all tokens of all calls of an answer, prompts included
    (`usage.all_calls.total_tokens`). An answer is charged its max_tokens when it begins, and the
    difference to what it used when it ends. So a key may be in debt."""
    max_tokens: Count | None = None
    """Most tokens of one answer. A request for more is refused (400). A request that gives no number
    gets this number at most."""
    models: Many[Name] | None = None
    """Names that the key may ask: models, and the mixture. By default all."""

    def over(self, base: "Allowance") -> "Allowance":
        """These limits, completed by the limits of `base` where these have none."""
        return Allowance.model_validate(base.model_dump() | self.model_dump(exclude_none=True))


class Access(Strict):
    """Who may use the endpoint. If there are no API keys, the endpoint answers only requests from this
    machine and refuses all others (403), unless `open` is set."""

    keys_file: str | None = Field(None, min_length=1)
    """A file with the hashes of the API keys (`slimmoa keys new` writes its lines). A relative path
    counts from the recipe's folder. Every node with an ingress needs the file. Keys may also be given
    in the environment variable SLIMMOA_API_KEYS, separated by commas."""
    reload_s: Seconds = 5
    """Longest time until a change of `keys_file` takes effect."""
    open: bool = False
    """Answer everybody who reaches the port, without a key."""
    metrics: Literal["keys", "open", "off"] = "keys"
    """Who may read `/metrics`, the numbers for Prometheus. `keys`: whoever may ask, with an API key
    where there are keys. `open`: everybody who reaches the port, without a key. `off`: nobody, and
    nothing is counted."""
    metrics_keys: Many[KeyName] = ()
    """Names of the API keys that may read `/metrics`, which has the numbers of all models and keys. By
    default all keys may."""
    cors_origins: Many[Origin] = ()
    """Origins (`https://chat.example.org`) whose web pages may call the API from a browser; `*` for
    all. By default none."""
    page: bool = True
    """Serve the page at `/`, on which people talk with the mixture in a browser. The page needs no key;
    all that it shows does (docs/page.md)."""
    allowance: Allowance = Allowance()
    """Limits of each key, as far as its own line has none. Without keys: of all callers together."""


def is_loopback(host: str) -> bool:
    """Whether `host` always means this machine: `localhost` or a loopback address.

    Any other name may stand for any machine, so for it the answer is False.
    """
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
