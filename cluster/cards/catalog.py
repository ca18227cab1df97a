"""Cards by name, so that a plan can be made for cards that are not here: `--card A100-80GB`.

A card's memory here is the total that CUDA reports, because plans have to fit into that: the lowest
figure in error messages and start-up logs of public issue threads, rounded down. A card with ECC on has
less memory than with ECC off. Bandwidths and dense bf16 operations (fp32 accumulation, no sparsity)
are from NVIDIA's data sheets and architecture white papers; a GeForce card has twice its 32-bit rate.

The catalog has no cards older than Ampere: vLLM 0.33 is not built for Volta, and Turing has no bf16. It
has no GB10 (DGX Spark) either, because sleeping frees nothing in a memory that the host shares.
"""

import re
from dataclasses import replace

from cluster.cards.card import GIB, Card
from configs.errors import UserError

PCIE4 = 31.5e9
"""Bytes per second of PCIe 4 x16 in one direction."""
PCIE4_X8 = PCIE4 / 2
"""The same with eight lanes."""
PCIE5 = 63e9
"""Bytes per second of PCIe 5 x16 in one direction."""
NVLINK_C2C = 450e9
"""Bytes per second from a Grace CPU's RAM to its GPU, in one direction (GH200 data sheet)."""
NEUTRAL = {"nvidia", "geforce", "generation", "blackwell", "workstation", "edition", "hbm3", "ac"}
"""Words in a driver's name of a card that do not tell one kind of card from another."""
SAME_MEMORY = 0.9
"""Two cards of one name are alike if the smaller memory is at least this share of the larger. ECC takes
7 % of it; the RTX 3060 of 8 GB, which is slower, has two thirds of the memory of the one of 12 GB."""


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
        # A100 data sheet (2021): 1,555 and 2,039 GB/s (SXM; PCIe 1,935), 312 TFLOPS.
        # CUDA: 39.45; 79.14.
        _card("A100-40GB", 39.4, 1555, 312, link=PCIE4, capability="8.0"),
        _card("A100-80GB", 79.1, 2039, 312, link=PCIE4, capability="8.0"),
        # H100 and H200 data sheets, SXM: 3.35 and 4.8 TB/s, 989 TFLOPS. CUDA: 79.19; 139.72.
        _card("H100-80GB", 79.1, 3350, 989, link=PCIE5, capability="9.0"),
        _card("H200-141GB", 139.7, 4800, 989, link=PCIE5, capability="9.0"),
        # The same data sheets, PCIe and NVL. H20: press. GH200 data sheet, HBM3. CUDA: 79.19; 93.00
        # (VACE#56); the H200 NVL as the H200, for no log was found; 95.00; 94.50.
        _card("H100-PCIe-80GB", 79.1, 2000, 756, link=PCIE5, capability="9.0"),
        _card("H100-NVL-94GB", 92.9, 3938, 835, link=PCIE5, capability="9.0"),
        _card("H200-NVL-141GB", 139.7, 4800, 835, link=PCIE5, capability="9.0"),
        _card("H20-96GB", 94.9, 4000, 148, link=PCIE5, capability="9.0"),
        _card("GH200-96GB", 94.4, 4000, 989, link=NVLINK_C2C, capability="9.0"),
        # Blackwell architecture brief: 8 TB/s, 2.25 PFLOPS; 180 GB of memory for programs. B300: the
        # same bandwidth and, in bf16, the same operations (HGX data sheet). CUDA: 178; 267.69.
        _card("B200-180GB", 178.0, 8000, 2250, link=PCIE5, capability="10.0"),
        _card("B300-288GB", 267.6, 8000, 2250, link=PCIE5, capability="10.3"),
        # L40S, L40, L4, A40, A30, A10 data sheets. CUDA: 44.34 to 44.67 for 48 GB with ECC, which the
        # A40 has as well (44.34 in a log of vLLM); 23.50; 22.18.
        _card("L40S", 44.3, 864, 362, link=PCIE4, capability="8.9"),
        _card("L40", 44.3, 864, 181, link=PCIE4, capability="8.9"),
        _card("L4", 22.0, 300, 121, link=PCIE4, capability="8.9"),
        _card("A40", 44.3, 696, 149.7, link=PCIE4, capability="8.6"),
        _card("A30", 23.5, 933, 165, link=PCIE4, capability="8.0"),
        _card("A10", 22.1, 600, 125, link=PCIE4, capability="8.6"),
        # A10G is Amazon's: 600 GB/s and 70 TFLOPS (EC2 G5 documentation), not the A10's 125.
        _card("A10G", 22.0, 600, 70, link=PCIE4, capability="8.6"),
        # RTX A6000, A5000, 6000 Ada and PRO 6000 data sheets. With ECC on: 46,068 MiB in nvidia-smi and
        # 44.43 in CUDA (MTVCrafter#21); with ECC off 47.4. A5000: no log was found, as the A10.
        _card("RTX-A6000", 44.4, 768, 154.8, link=PCIE4, capability="8.6"),
        _card("RTX-A5000", 22.1, 768, 111, link=PCIE4, capability="8.6"),
        _card("RTX-6000-Ada", 44.4, 960, 364, link=PCIE4, capability="8.9"),
        # The three editions have 94.96 to 95.01 in CUDA; Max-Q and Server run at lower clocks.
        _card("RTX-PRO-6000", 94.9, 1792, 503, link=PCIE5, capability="12.0"),
        _card("RTX-PRO-6000-Max-Q", 94.9, 1792, 440, link=PCIE5, capability="12.0"),
        _card("RTX-PRO-6000-Server", 94.9, 1597, 480, link=PCIE5, capability="12.0"),
        # GeForce: Ampere, Ada and Blackwell white papers. CUDA: 11.63; 23.53; 15.57 to 15.60 (Ada of
        # 16 GB); 23.58; 15.46 (Blackwell of 16 GB); 31.37. An RTX 4060 Ti has eight lanes of PCIe.
        _card("RTX-3060-12GB", 11.6, 360, 25.5, link=PCIE4, capability="8.6"),
        _card("RTX-3090", 23.5, 936, 71, link=PCIE4, capability="8.6"),
        _card("RTX-4060-Ti-16GB", 15.5, 288, 44.1, link=PCIE4_X8, capability="8.9"),
        _card("RTX-4070-Ti-SUPER", 15.5, 672, 88.2, link=PCIE4, capability="8.9"),
        _card("RTX-4080", 15.5, 717, 97.5, link=PCIE4, capability="8.9"),
        _card("RTX-4080-SUPER", 15.5, 736, 104.4, link=PCIE4, capability="8.9"),
        _card("RTX-4090", 23.5, 1008, 165.2, link=PCIE4, capability="8.9"),
        _card("RTX-5070-Ti", 15.4, 896, 87.9, link=PCIE5, capability="12.0"),
        _card("RTX-5080", 15.4, 960, 112.6, link=PCIE5, capability="12.0"),
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
