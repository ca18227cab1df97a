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
    ],
)
def test_driver_names_find_their_data_sheet(driver_name: str, gib: float, name: str) -> None:
    found = find_similar(driver_name, int(gib * GIB))
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize(
    ("driver_name", "gib"),
    [
        ("Tesla V100-SXM2-32GB", 31.7),
        ("Tesla T4", 14.6),
        ("Quadro RTX 6000", 23.6),
        ("NVIDIA A100-SXM-64GB", 63.4),  # between the two sizes that the catalog has
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4.8),
        ("NVIDIA A100X", 79.2),
        ("NVIDIA A800-SXM4-80GB", 79.3),
        ("NVIDIA H800", 79.1),
        ("NVIDIA H100 96GB HBM3", 94.5),
        ("NVIDIA H20-3e", 140.0),
        ("NVIDIA GH200 144G HBM3e", 139.0),
        ("NVIDIA GB200", 184.0),
        ("NVIDIA GB10", 119.6),
        ("NVIDIA A40-48Q", 44.4),
        ("NVIDIA A16", 14.5),
        ("NVIDIA L20", 44.4),
        ("NVIDIA L2", 22.0),
        ("NVIDIA RTX A4000", 15.6),
        ("NVIDIA RTX 4000 Ada Generation", 19.5),
        ("NVIDIA RTX 6000 Ada Generation Laptop GPU", 15.6),
        ("NVIDIA RTX PRO 6000D Blackwell Workstation Edition", 83.0),
        ("NVIDIA RTX PRO 5000 Blackwell", 47.4),
        ("NVIDIA RTX PRO 4500 Blackwell", 31.4),
        ("NVIDIA GeForce RTX 3060", 7.7),  # 8 GB, with two thirds of the bandwidth
        ("NVIDIA GeForce RTX 3060 Ti", 7.7),
        ("NVIDIA GeForce RTX 3060 Laptop GPU", 5.7),
        ("NVIDIA GeForce RTX 3090 Ti", 23.6),
        ("NVIDIA GeForce RTX 4060", 7.6),
        ("NVIDIA GeForce RTX 4070 Ti", 11.7),
        ("NVIDIA GeForce RTX 4080 Laptop GPU", 11.7),
        ("NVIDIA GeForce RTX 4090 D", 23.6),
        ("NVIDIA GeForce RTX 4090", 47.4),  # rebuilt with 48 GB
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 15.6),
        ("NVIDIA GeForce RTX 5070", 11.5),
        ("NVIDIA GeForce RTX 5090 D", 31.4),
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


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(UnknownCard, match=r"no card 'A1000' .* A100-40GB, A100-80GB"):
        card_by_name("A1000")


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
