"""Finds a card by its name: as people write it, or as a driver gives it.

`RTX 3090`, `rtx3090`, `3090`, `A100 80GB`, `a100-80` and `NVIDIA GeForce RTX 4060 Ti` all name a card
of `known_cards.py`, so that a plan can be made for cards that are not here: `--card "RTX 3090"`.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from cluster.cards.card import GIB, Card
from cluster.cards.known_cards import CARDS, UNIFIED
from configs.errors import UserError
from configs.known_keys import nearest_words

__all__ = ["CARDS", "UnknownCard", "card_by_name", "find_similar"]

NEUTRAL = {
    *("nvidia", "geforce", "generation", "blackwell", "workstation", "edition", "hbm3", "ac"),
    *("tesla", "gpu"),
}
"""Words in a driver's name of a card that do not tell one kind of card from another."""
NOISE = re.compile(
    r"nvidia|geforce|tesla|graphics|gpu|generation|edition|workstation|blackwell|lovelace|ampere|hopper"
    r"|sxm\d?|hbm\d\w?|gddr\d\w?"
)
"""Words that people add to a card's name."""
GLUED = re.compile(r"nvidia|geforce|tesla")
"""Those that they also write without a space (`GeForceRTX3090`)."""
PRODUCTS = {"dgxspark": "GB10", "spark": "GB10"}
"""Names of machines that have one card."""
SIZES = (6, 8, 10, 11, 12, 16, 20, 24, 32, 40, 48, 80, 94, 96, 128, 141, 192, 288)
"""GB of memory that cards are sold with."""
SAME_MEMORY = 0.9
"""Two cards of one name are alike if the smaller memory is at least this share of the larger. ECC takes
7 % of it; the RTX 3060 of 8 GB, which is slower, has two thirds of the memory of the one of 12 GB."""
UNIFIED_SHARE = 0.75
"""Share of a memory that GPU and CPU have in common which counts as the GPU's. The rest is for the
engines' processes and for the weights of models that sleep, which the plan counts as host RAM."""
SHOWN = 5
"""Most similar names that a message has."""
ELSEWHERE = (
    (
        r"(amd)?(radeon|instinct)?(pro)?(mi\d{2,3}\w*|rx\d{4}\w*|w\d{4}|strix\w*|ryzen\w*)|amd\w*|radeon\w*",
        "is made by AMD, and models run on NVIDIA's cards here, or on a CPU. To use an AMD card, run "
        "a server such as llama-server on it yourself, and name that server in the recipe (engine: "
        "openai_http)",
    ),
    (
        r"(apple)?m[1-5](pro|max|ultra)?\d*(gb)?|apple\w*|mac\w*|metal|mps",
        "is made by Apple, and models of llama.cpp run on a Mac's CPU here: leave the card out, or "
        "give its "
        "RAM with `slimmoa presets --ram`",
    ),
    (
        r"(intel)?arc\w*|b5[78]0|a7[57]0|gaudi\d*|intel\w*|xpu|habana",
        "is made by Intel, and models run on NVIDIA's cards here, or on a CPU. To plan for the CPU, "
        "leave the card out; to use the card, run a server on it yourself, and name that server in "
        "the recipe (engine: openai_http)",
    ),
    (
        r"tpu\w*|trainium\d*|inferentia\d*|groq\w*|cerebras\w*",
        "is no GPU of NVIDIA, and only those run models here",
    ),
    (
        r"(p|k|m)(4|6|10|40|60|80|100|2000|4000|6000)|gtx?\d{3,4}\w*|titan\w*|1[06][3-8]0(ti)?",
        "is older than what vLLM is built for (compute capability 7.5), so the catalog does not have "
        "it. llama.cpp can use it: run this on the machine that has the card, and leave --card out",
    ),
    (
        r"cpu|none|ram|host",
        "is no GPU: leave the card out to plan for this machine; `slimmoa presets --ram GB` looks at "
        "another",
    ),
)
"""Cards that cannot be planned for, by a pattern of their names, and why."""


class UnknownCard(UserError):
    """The catalog has no card of this name."""


def card_by_name(name: str, index: int = 0) -> Card:
    """The card that a person means by a name, as GPU number `index` of a machine.

    Case, spaces, hyphens and NOISE do not matter; `RTX 4060 Ti 16GB`, `4060ti-16` and
    `rtx_4060_ti_16g` are one card. Where a name has several sizes of memory, and none is said, the
    first of the catalog is meant.

    Raises:
        UnknownCard: the catalog has no such card; the message says why, or names what is similar,
            or all cards.
    """
    if (card := _aliases().get(_plain(name))) is not None:
        return _as_gpu(card, index)
    if count := re.match(r"\s*(\d+)\s*[xX*]\s*(?=[A-Za-z])", name):
        rest = name[count.end() :].strip()
        raise UnknownCard(f"{name!r} names several cards; name the card once for each: {rest}, {rest}")
    for pattern, why in ELSEWHERE:
        if re.fullmatch(pattern, _plain(name)):
            raise UnknownCard(f"{name!r} {why}")
    similar = nearest_words(name, tuple(CARDS), SHOWN)
    known = f"similar are {', '.join(similar)}" if similar else f"it has: {', '.join(CARDS)}"
    raise UnknownCard(f"no card {name!r:.80} in the catalog; {known}")


def _as_gpu(card: Card, index: int) -> Card:
    if card.name not in UNIFIED:
        return replace(card, indices=(index,))
    share = int(UNIFIED_SHARE * card.total_bytes)
    host = card.total_bytes - share
    return replace(card, indices=(index,), total_bytes=share, host_bytes=host)


@cache
def _aliases() -> dict[str, Card]:
    """The cards by all of their names. A card's own name comes before another card's short form, and of
    equal short forms the first card of the catalog has it."""
    found = {_plain(card.name): card for card in CARDS.values()}
    found |= {name: CARDS[card] for name, card in PRODUCTS.items()}
    for card in CARDS.values():
        base = _plain(re.sub(r"-\d+GB", "", card.name))
        for size in ("", *_sizes(card)):
            for form in (base + size, (base + size).removeprefix("rtx")):
                found.setdefault(form, card)
    return found


def _sizes(card: Card) -> Iterator[str]:
    """The memory of a card as people write it: the number in its name, or that of its sellers."""
    named = re.search(r"-(\d+)GB", card.name)
    sold = next(size for size in SIZES if size >= card.total_bytes / GIB)
    for size in {int(named[1]) if named else sold, sold}:
        yield from (f"{size}", f"{size}g", f"{size}gb", f"{size}gib")


def _plain(name: str) -> str:
    """A name's letters and digits alone, without the words that people add."""
    words = re.split(r"[^a-z0-9]+", name.casefold())
    return GLUED.sub("", "".join(word for word in words if not NOISE.fullmatch(word)))


def find_similar(driver_name: str, total_bytes: int) -> Card | None:
    """The catalog's card for a driver's name of it (`NVIDIA A100-SXM4-80GB`); None if there is none.

    All words of the name have to be the card's, but for those that tell nothing, so that no card is
    taken for one of a similar name (RTX 4060 for 4060 Ti, L40 for L40S, a laptop's GPU). The word
    `PCIe` tells something only if the catalog has a card with this word. The memory has to agree.

    Args:
        driver_name: the name that NVML gives.
        total_bytes: the card's memory.
    """
    words = _words(driver_name)
    named = [card for card in CARDS.values() if _words(card.name) == words]
    if not named:
        named = [card for card in CARDS.values() if _words(card.name) == words - {"pcie"}]
    found = min(named, key=lambda card: abs(card.total_bytes - total_bytes), default=None)
    if found is None:
        return None
    smaller, larger = sorted((found.total_bytes, total_bytes))
    return found if smaller >= SAME_MEMORY * larger else None


def _words(name: str) -> set[str]:
    """The words of a name in lower case, without sizes of memory and words that tell nothing."""
    words = re.split(r"[\s-]+", name.casefold())
    return {w for w in words if w not in NEUTRAL and not re.fullmatch(r"\d+gb|sxm\d*", w)}
