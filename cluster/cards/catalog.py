"""Cards by name, so that a plan can be made for cards that are not here: `--card A100-80GB`.

A card's memory here is the total that CUDA reports, because plans have to fit into that: the lowest
figure in error messages and start-up logs of public issue threads, rounded down. Bandwidths and dense
bf16 operations (fp32 accumulation, no sparsity) are from NVIDIA's data sheets and architecture white
papers.
"""

import re
from dataclasses import replace

from cluster.cards.card import GIB, Card
from configs.errors import UserError

PCIE4 = 31.5e9
"""Bytes per second of PCIe 4 x16 in one direction."""
PCIE5 = 63e9
"""Bytes per second of PCIe 5 x16 in one direction."""


class UnknownCard(UserError):
    """The catalog has no card of this name."""


def _card(
    name: str, gib: float, gigabytes_s: float, teraflops: float, *, link: float, capability: str
) -> Card:
    return Card(
        name=name,
        total_bytes=int(gib * GIB),
        kind="gpu",
        bandwidth=gigabytes_s * 1e9,
        flops=teraflops * 1e12,
        link=link,
        capability=capability,
    )


CARDS = {
    card.name: card
    for card in (
        # A100 data sheet (2021): 1,555 and 2,039 GB/s (SXM), 312 TFLOPS. CUDA: 39.45; 79.14.
        _card("A100-40GB", 39.4, 1555, 312, link=PCIE4, capability="8.0"),
        _card("A100-80GB", 79.1, 2039, 312, link=PCIE4, capability="8.0"),
        # H100 and H200 data sheets, SXM: 3.35 and 4.8 TB/s, 989 TFLOPS. CUDA: 79.19; 139.72.
        _card("H100-80GB", 79.1, 3350, 989, link=PCIE5, capability="9.0"),
        _card("H200-141GB", 139.7, 4800, 989, link=PCIE5, capability="9.0"),
        # Blackwell architecture brief: 8 TB/s, 2.25 PFLOPS; 180 GB of memory for programs.
        _card("B200-180GB", 178.0, 8000, 2250, link=PCIE5, capability="10.0"),
        # L40S, L4, A40, A10 data sheets. CUDA: 44.34 to 44.67 for 48 GB with ECC.
        _card("L40S", 44.3, 864, 362, link=PCIE4, capability="8.9"),
        _card("A40", 44.3, 696, 149.7, link=PCIE4, capability="8.6"),
        _card("L4", 22.0, 300, 121, link=PCIE4, capability="8.9"),
        # A10G is Amazon's: 600 GB/s and 70 TFLOPS (EC2 G5 documentation), not the A10's 125.
        _card("A10G", 22.0, 600, 70, link=PCIE4, capability="8.6"),
        # RTX A6000 data sheet; GeForce: Ampere, Ada and Blackwell white papers. CUDA: 23.53, 23.58,
        # 31.37.
        _card("RTX-A6000", 47.4, 768, 154.8, link=PCIE4, capability="8.6"),
        _card("RTX-3090", 23.5, 936, 71, link=PCIE4, capability="8.6"),
        _card("RTX-4090", 23.5, 1008, 165.2, link=PCIE4, capability="8.9"),
        _card("RTX-5090", 31.3, 1792, 209.5, link=PCIE5, capability="12.0"),
    )
}


def card_by_name(name: str, index: int = 0) -> Card:
    """The catalog's card of that name (in upper or lower case), as GPU number `index` of a machine.

    Raises:
        UnknownCard: the catalog has no such card; the message lists all names.
    """
    for known, card in CARDS.items():
        if known.casefold() == name.casefold():
            return replace(card, indices=(index,))
    raise UnknownCard(f"no card {name!r} in the catalog; it has: {', '.join(CARDS)}")


def find_similar(driver_name: str, total_bytes: int) -> Card | None:
    """The catalog's card for a driver's name of it (`NVIDIA A100-SXM4-80GB`); None if there is none.

    If several cards have that name, the card whose memory is nearest to `total_bytes`.
    """
    words = set(re.split(r"[\s-]+", driver_name))
    found = [c for c in CARDS.values() if set(_model_words(c.name)) <= words]
    return min(found, key=lambda c: abs(c.total_bytes - total_bytes), default=None)


def _model_words(name: str) -> list[str]:
    """The words of a catalog name without its memory size."""
    return [word for word in name.split("-") if not re.fullmatch(r"\d+GB", word)]
