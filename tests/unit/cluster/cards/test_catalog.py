"""The catalog of cards, and which of its cards a driver's name means."""

import pytest

from cluster.cards.card import GIB, Card
from cluster.cards.catalog import CARDS, UnknownCard, card_by_name, find_similar


@pytest.mark.parametrize(
    ("driver_name", "gib", "name"),
    # Names as NVML and nvidia-smi give them in public logs, with the memory of that card.
    [
        ("NVIDIA A100-SXM4-40GB", 39.4, "A100-40GB"),
        ("NVIDIA A100-PCIE-40GB", 39.4, "A100-40GB"),
        ("NVIDIA A100-SXM4-80GB", 79.1, "A100-80GB"),
        ("NVIDIA A100 80GB PCIe", 79.2, "A100-80GB"),
        ("A100-SXM4-80GB", 79.2, "A100-80GB"),  # an older driver
        ("NVIDIA H100 80GB HBM3", 79.1, "H100-80GB"),
        ("NVIDIA H100 PCIe", 79.2, "H100-PCIe-80GB"),
        ("NVIDIA H100 NVL", 93.0, "H100-NVL-94GB"),
        ("NVIDIA H200", 139.8, "H200-141GB"),
        ("NVIDIA H200 NVL", 139.8, "H200-NVL-141GB"),
        ("NVIDIA H20", 95.2, "H20-96GB"),
        ("NVIDIA GH200 480GB", 94.5, "GH200-96GB"),  # 480 GB of the CPU's RAM
        ("NVIDIA B200", 178.4, "B200-180GB"),
        ("NVIDIA B300 SXM6 AC", 267.7, "B300-288GB"),
        ("NVIDIA L4", 22.0, "L4"),
        ("NVIDIA L40", 44.4, "L40"),
        ("NVIDIA L40S", 44.4, "L40S"),
        ("NVIDIA A40", 44.4, "A40"),
        ("NVIDIA A30", 23.5, "A30"),
        ("NVIDIA A10", 22.2, "A10"),
        ("NVIDIA A10G", 22.0, "A10G"),
        ("NVIDIA RTX A6000", 47.4, "RTX-A6000"),
        ("NVIDIA RTX A6000", 44.4, "RTX-A6000"),  # with ECC on
        ("NVIDIA RTX A5000", 23.7, "RTX-A5000"),
        ("NVIDIA RTX 6000 Ada Generation", 47.5, "RTX-6000-Ada"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 95.0, "RTX-PRO-6000"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", 95.0, "RTX-PRO-6000-Max-Q"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 95.0, "RTX-PRO-6000-Server"),
        ("NVIDIA GeForce RTX 3060", 11.6, "RTX-3060-12GB"),
        ("NVIDIA GeForce RTX 3090", 23.7, "RTX-3090"),
        ("GeForce RTX 3090", 23.7, "RTX-3090"),
        ("NVIDIA GeForce RTX 4060 Ti", 15.6, "RTX-4060-Ti-16GB"),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", 15.6, "RTX-4070-Ti-SUPER"),
        ("NVIDIA GeForce RTX 4080", 15.6, "RTX-4080"),
        ("NVIDIA GeForce RTX 4080 SUPER", 15.6, "RTX-4080-SUPER"),
        ("NVIDIA GeForce RTX 4090", 23.6, "RTX-4090"),
        ("NVIDIA GeForce RTX 5070 Ti", 15.5, "RTX-5070-Ti"),
        ("NVIDIA GeForce RTX 5080", 15.5, "RTX-5080"),
        ("NVIDIA GeForce RTX 5090", 31.4, "RTX-5090"),
        ("Tesla V100-SXM2-32GB", 31.7, "V100-32GB"),
        ("Tesla T4", 14.6, "T4"),
        ("NVIDIA A800-SXM4-80GB", 79.3, "A800-80GB"),
        ("NVIDIA H800", 79.1, "H800-80GB"),
        ("NVIDIA GB200", 184.0, "GB200-186GB"),
        ("NVIDIA GB10", 119.6, "GB10"),
        ("NVIDIA RTX A4000", 15.6, "RTX-A4000"),
        ("NVIDIA RTX 4000 Ada Generation", 19.5, "RTX-4000-Ada"),
        ("NVIDIA GeForce RTX 3060 Ti", 7.7, "RTX-3060-Ti"),
        ("NVIDIA GeForce RTX 3060 Laptop GPU", 5.7, "RTX-3060-Laptop"),
        ("NVIDIA GeForce RTX 3090 Ti", 23.6, "RTX-3090-Ti"),
        ("NVIDIA GeForce RTX 4060", 7.6, "RTX-4060"),
        ("NVIDIA GeForce RTX 4070 Ti", 11.7, "RTX-4070-Ti"),
        ("NVIDIA GeForce RTX 4080 Laptop GPU", 11.7, "RTX-4080-Laptop"),
        ("NVIDIA GeForce RTX 4090 D", 23.6, "RTX-4090-D"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 15.6, "RTX-4090-Laptop"),
        ("NVIDIA GeForce RTX 5070", 11.5, "RTX-5070"),
        ("NVIDIA GeForce RTX 5090 D", 31.4, "RTX-5090-D"),
        ("NVIDIA GeForce RTX 3060", 7.7, "RTX-3060-8GB"),
        ("Tesla V100-PCIE-16GB", 15.8, "V100-16GB"),
        ("NVIDIA GeForce RTX 4060 Ti", 7.7, "RTX-4060-Ti-8GB"),
        ("NVIDIA GeForce RTX 5060 Ti", 15.5, "RTX-5060-Ti-16GB"),
        ("NVIDIA GeForce RTX 3080", 9.8, "RTX-3080-10GB"),
        ("NVIDIA GeForce RTX 5090 Laptop GPU", 23.5, "RTX-5090-Laptop"),
    ],
)
def test_driver_names_find_their_data_sheet(driver_name: str, gib: float, name: str) -> None:
    found = find_similar(driver_name, int(gib * GIB))
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize(
    ("driver_name", "gib"),
    [
        ("Quadro RTX 6000", 23.6),
        ("NVIDIA A100-SXM-64GB", 63.4),  # between the two sizes that the catalog has
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4.8),
        ("NVIDIA A100X", 79.2),
        ("NVIDIA H100 96GB HBM3", 94.5),
        ("NVIDIA H20-3e", 140.0),
        ("NVIDIA GH200 144G HBM3e", 139.0),
        ("NVIDIA A40-48Q", 44.4),
        ("NVIDIA A16", 14.5),
        ("NVIDIA L20", 44.4),
        ("NVIDIA L2", 22.0),
        ("NVIDIA RTX 6000 Ada Generation Laptop GPU", 15.6),
        ("NVIDIA RTX PRO 6000D Blackwell Workstation Edition", 83.0),
        ("NVIDIA RTX PRO 5000 Blackwell", 47.4),
        ("NVIDIA RTX PRO 4500 Blackwell", 31.4),
        ("NVIDIA GeForce RTX 4090", 47.4),  # rebuilt with 48 GB
        ("NVIDIA Graphics Device", 23.6),
        ("NVIDIA", 23.6),
        ("", 23.6),
    ],
)
def test_a_card_is_never_taken_for_one_of_a_similar_name(driver_name: str, gib: float) -> None:
    assert find_similar(driver_name, int(gib * GIB)) is None


@pytest.mark.parametrize("known", CARDS.values(), ids=lambda c: c.name)
def test_each_card_of_the_catalog_finds_itself(known: Card) -> None:
    assert find_similar(known.name, known.total_bytes) == known


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("RTX 3090", "RTX-3090"),
        ("3090", "RTX-3090"),
        ("rtx3090", "RTX-3090"),
        ("rtx_3090", "RTX-3090"),
        ("RTX 3090 24GB", "RTX-3090"),
        ("GeForceRTX3090", "RTX-3090"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090"),
        ("H200", "H200-141GB"),
        ("B200", "B200-180GB"),
        ("B200 192GB", "B200-180GB"),
        ("A100", "A100-40GB"),
        ("A100 80GB", "A100-80GB"),
        ("a100-80", "A100-80GB"),
        ("A100 SXM 80GB", "A100-80GB"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA H100 80GB HBM3", "H100-80GB"),
        ("H100 PCIe", "H100-PCIe-80GB"),
        ("H100 NVL", "H100-NVL-94GB"),
        ("h20", "H20-96GB"),
        ("H800", "H800-80GB"),
        ("4060 Ti 16GB", "RTX-4060-Ti-16GB"),
        ("rtx 4060ti 16 g", "RTX-4060-Ti-16GB"),
        ("4060 Ti", "RTX-4060-Ti-8GB"),
        ("4070 super", "RTX-4070-SUPER"),
        ("5060 Ti", "RTX-5060-Ti-16GB"),
        ("RTX 4090 Laptop GPU", "RTX-4090-Laptop"),
        ("4090 laptop", "RTX-4090-Laptop"),
        ("RTX 6000 Ada Generation", "RTX-6000-Ada"),
        ("rtx6000ada", "RTX-6000-Ada"),
        ("RTX PRO 6000", "RTX-PRO-6000"),
        ("RTX PRO 6000 Blackwell Server Edition", "RTX-PRO-6000-Server"),
        ("a6000", "RTX-A6000"),
        ("Tesla T4", "T4"),
        ("V100", "V100-16GB"),
        ("V100 32GB", "V100-32GB"),
        ("L4", "L4"),
        ("L40", "L40"),
        ("L40S", "L40S"),
        ("A40", "A40"),
        ("DGX Spark", "GB10"),
    ],
)
def test_cards_are_found_by_the_names_that_people_write(written: str, name: str) -> None:
    assert card_by_name(written).name == name


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("MI300X", "'MI300X' is made by AMD, and models run on NVIDIA's cards here"),
        ("AMD Instinct MI300X", "is made by AMD"),
        ("RX 7900 XTX", "is made by AMD"),
        ("M3 Max", "is made by Apple, and models of llama.cpp run on a Mac's CPU here"),
        ("Apple M2 Ultra", "is made by Apple"),
        ("Arc A770", "is made by Intel"),
        ("GTX 1080 Ti", "is older than what vLLM is built for"),
        ("P40", "is older than what vLLM is built for"),
        ("cpu", "is no GPU: leave the card out to plan for this machine"),
        ("2x RTX 3090", "names several cards; name the card once for each: RTX 3090, RTX 3090"),
        ("RTX 309", "no card 'RTX 309' in the catalog; similar are RTX-3090, RTX-3090-Ti"),
        ("A1000", "no card 'A1000' in the catalog; similar are A100-80GB, A100-40GB"),
        ("rtx 4095", "similar are RTX-4090"),
        ("", "no card '' in the catalog; it has: T4, V100-16GB"),
        ("x" * 300, "in the catalog"),
    ],
)
def test_other_names_are_refused_with_a_reason_or_what_is_similar(written: str, why: str) -> None:
    with pytest.raises(UnknownCard) as caught:
        card_by_name(written)
    assert why in str(caught.value)


def test_a_memory_that_is_the_hosts_too_is_divided() -> None:
    card = card_by_name("GB10", 1)
    assert card.indices == (1,)
    assert card.host_bytes is not None
    assert card.total_bytes + card.host_bytes == CARDS["GB10"].total_bytes
    assert card.total_bytes > 2 * card.host_bytes


def test_names_ignore_case_and_take_a_number() -> None:
    assert card_by_name("rtx-4090", 3).name == "RTX-4090"
    assert card_by_name("rtx-4090", 3).indices == (3,)


@pytest.mark.parametrize("known", CARDS.values(), ids=lambda c: c.name)
def test_named_cards_are_complete_and_no_larger_than_their_name(known: Card) -> None:
    assert known.kind == "gpu"
    assert known.bandwidth
    assert known.flops
    assert known.link
    assert known.flops / known.bandwidth > 30  # operations per byte: no unit slipped
    words = [w.removesuffix("GB") for w in known.name.split("-") if w.endswith("GB")]
    assert all(known.total_bytes <= int(w) * (1 << 30) for w in words)
