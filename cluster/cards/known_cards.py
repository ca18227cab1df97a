"""The cards that are known by name: their memory, bandwidth, operations and compute capability.

A card's memory here is the total that CUDA reports, because plans have to fit into that: the lowest
figure in error messages and start-up logs of public issue threads, rounded down. A card with ECC on has
less memory than with ECC off. Bandwidths and dense bf16 operations (fp32 accumulation, no sparsity)
are from NVIDIA's data sheets and architecture white papers; a GeForce card has twice its 32-bit rate,
and one of a laptop that of its highest clock (NVIDIA's comparison of laptops). The operations of cards
without bf16 are those of fp16.

Where a name has several sizes of memory, the first one here is meant by the name alone.
"""

from cluster.cards.card import GIB, Card

PCIE3 = 15.75e9
"""Bytes per second of PCIe 3 x16 in one direction."""
PCIE4 = 31.5e9
"""Bytes per second of PCIe 4 x16 in one direction."""
PCIE4_X8 = PCIE4 / 2
"""The same with eight lanes."""
PCIE5 = 63e9
"""Bytes per second of PCIe 5 x16 in one direction."""
PCIE5_X8 = PCIE5 / 2
"""The same with eight lanes."""
NVLINK_C2C = 450e9
"""Bytes per second from a Grace CPU's RAM to its GPU, in one direction (GH200 data sheet)."""


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
        # T4 and V100 data sheets (PCIe 3): 320 and 900 GB/s, 65 and 125 TFLOPS. CUDA: 14.58 to 14.76;
        # 15.77; 31.74.
        _card("T4", 14.5, 320, 65, link=PCIE3, capability="7.5"),
        _card("V100-16GB", 15.7, 900, 125, link=PCIE3, capability="7.0"),
        _card("V100-32GB", 31.7, 900, 125, link=PCIE3, capability="7.0"),
        # A100 data sheet (2021): 1,555 and 2,039 GB/s (SXM; PCIe 1,935), 312 TFLOPS.
        # CUDA: 39.45; 79.14.
        _card("A100-40GB", 39.4, 1555, 312, link=PCIE4, capability="8.0"),
        _card("A100-80GB", 79.1, 2039, 312, link=PCIE4, capability="8.0"),
        # A800 and H800: an A100 and an H100 with fewer links between GPUs.
        _card("A800-80GB", 79.1, 2039, 312, link=PCIE4, capability="8.0"),
        _card("A800-40GB", 39.4, 1555, 312, link=PCIE4, capability="8.0"),
        _card("H800-80GB", 79.1, 3350, 989, link=PCIE5, capability="9.0"),
        _card("H800-PCIe-80GB", 79.1, 2000, 756, link=PCIE5, capability="9.0"),
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
        # GB200: a GPU of B200's kind beside a Grace CPU. GB10 (DGX Spark): 273 GB/s, 1,000 TFLOPS in
        # sparse FP4, so 125 in bf16; it shares its memory with the CPU, and CUDA reports 119.6.
        _card("GB200-186GB", 184.0, 8000, 2500, link=NVLINK_C2C, capability="10.0"),
        _card("GB10", 119.6, 273, 125, link=PCIE5, capability="12.1"),
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
        # RTX A4000, A4500 and 4000 Ada data sheets. CUDA: 15.61 (VGGT-Long#6); 19.68; 19.54.
        _card("RTX-A4000", 15.6, 448, 76.7, link=PCIE4, capability="8.6"),
        _card("RTX-A4500", 19.6, 640, 94.6, link=PCIE4, capability="8.6"),
        _card("RTX-4000-Ada", 19.5, 360, 106.9, link=PCIE4, capability="8.9"),
        # The three editions have 94.96 to 95.01 in CUDA; Max-Q and Server run at lower clocks.
        _card("RTX-PRO-6000", 94.9, 1792, 503, link=PCIE5, capability="12.0"),
        _card("RTX-PRO-6000-Max-Q", 94.9, 1792, 440, link=PCIE5, capability="12.0"),
        _card("RTX-PRO-6000-Server", 94.9, 1597, 480, link=PCIE5, capability="12.0"),
        # GeForce: Ampere, Ada and Blackwell white papers. CUDA: 11.63; 23.53; 15.57 to 15.60 (Ada of
        # 16 GB); 23.58; 15.46 (Blackwell of 16 GB); 31.37. An RTX 4060 Ti has eight lanes of PCIe.
        _card("RTX-2080-Ti", 10.7, 616, 53.8, link=PCIE3, capability="7.5"),
        _card("RTX-3060-12GB", 11.6, 360, 25.5, link=PCIE4, capability="8.6"),
        _card("RTX-3060-8GB", 7.6, 240, 25.5, link=PCIE4, capability="8.6"),
        _card("RTX-3060-Ti", 7.6, 448, 32.4, link=PCIE4, capability="8.6"),
        _card("RTX-3070", 7.6, 448, 40.6, link=PCIE4, capability="8.6"),
        _card("RTX-3070-Ti", 7.6, 608, 43.5, link=PCIE4, capability="8.6"),
        _card("RTX-3080-10GB", 9.6, 760, 59.5, link=PCIE4, capability="8.6"),
        _card("RTX-3080-12GB", 11.6, 912, 61.3, link=PCIE4, capability="8.6"),
        _card("RTX-3080-Ti", 11.6, 912, 68.2, link=PCIE4, capability="8.6"),
        _card("RTX-3090", 23.5, 936, 71, link=PCIE4, capability="8.6"),
        _card("RTX-3090-Ti", 23.5, 1008, 80, link=PCIE4, capability="8.6"),
        _card("RTX-4060", 7.6, 272, 30.2, link=PCIE4_X8, capability="8.9"),
        _card("RTX-4060-Ti-8GB", 7.6, 288, 44.1, link=PCIE4_X8, capability="8.9"),
        _card("RTX-4060-Ti-16GB", 15.5, 288, 44.1, link=PCIE4_X8, capability="8.9"),
        _card("RTX-4070", 11.6, 504, 58.3, link=PCIE4, capability="8.9"),
        _card("RTX-4070-SUPER", 11.6, 504, 71, link=PCIE4, capability="8.9"),
        _card("RTX-4070-Ti", 11.6, 504, 80.2, link=PCIE4, capability="8.9"),
        _card("RTX-4070-Ti-SUPER", 15.5, 672, 88.2, link=PCIE4, capability="8.9"),
        _card("RTX-4080", 15.5, 717, 97.5, link=PCIE4, capability="8.9"),
        _card("RTX-4080-SUPER", 15.5, 736, 104.4, link=PCIE4, capability="8.9"),
        _card("RTX-4090", 23.5, 1008, 165.2, link=PCIE4, capability="8.9"),
        _card("RTX-4090-D", 23.5, 1008, 147, link=PCIE4, capability="8.9"),
        _card("RTX-5050", 7.5, 320, 26.3, link=PCIE5_X8, capability="12.0"),
        _card("RTX-5060", 7.5, 448, 38.4, link=PCIE5_X8, capability="12.0"),
        _card("RTX-5060-Ti-16GB", 15.4, 448, 47.4, link=PCIE5_X8, capability="12.0"),
        _card("RTX-5060-Ti-8GB", 7.5, 448, 47.4, link=PCIE5_X8, capability="12.0"),
        _card("RTX-5070", 11.4, 672, 61.7, link=PCIE5, capability="12.0"),
        _card("RTX-5070-Ti", 15.4, 896, 87.9, link=PCIE5, capability="12.0"),
        _card("RTX-5080", 15.4, 960, 112.6, link=PCIE5, capability="12.0"),
        _card("RTX-5090", 31.3, 1792, 209.5, link=PCIE5, capability="12.0"),
        _card("RTX-5090-D", 31.3, 1792, 209.5, link=PCIE5, capability="12.0"),
        # Laptops: other chips than the cards of the same name, with less memory. Memory as that of
        # cards of the same size.
        _card("RTX-3060-Laptop", 5.6, 336, 26.2, link=PCIE4, capability="8.6"),
        _card("RTX-3070-Laptop", 7.6, 448, 33.2, link=PCIE4, capability="8.6"),
        _card("RTX-3070-Ti-Laptop", 7.6, 448, 35, link=PCIE4, capability="8.6"),
        _card("RTX-3080-Laptop-8GB", 7.6, 448, 42, link=PCIE4, capability="8.6"),
        _card("RTX-3080-Laptop-16GB", 15.5, 448, 42, link=PCIE4, capability="8.6"),
        _card("RTX-3080-Ti-Laptop", 15.5, 512, 47.2, link=PCIE4, capability="8.6"),
        _card("RTX-4050-Laptop", 5.6, 192, 24.3, link=PCIE4_X8, capability="8.9"),
        _card("RTX-4060-Laptop", 7.6, 256, 29.1, link=PCIE4_X8, capability="8.9"),
        _card("RTX-4070-Laptop", 7.6, 256, 40.1, link=PCIE4_X8, capability="8.9"),
        _card("RTX-4080-Laptop", 11.6, 432, 67.7, link=PCIE4, capability="8.9"),
        _card("RTX-4090-Laptop", 15.5, 576, 79.4, link=PCIE4, capability="8.9"),
        _card("RTX-5060-Laptop", 7.5, 384, 33.2, link=PCIE5_X8, capability="12.0"),
        _card("RTX-5070-Laptop", 7.5, 384, 43.3, link=PCIE5_X8, capability="12.0"),
        _card("RTX-5070-Ti-Laptop", 11.4, 672, 52.3, link=PCIE5, capability="12.0"),
        _card("RTX-5080-Laptop", 15.4, 896, 70.3, link=PCIE5, capability="12.0"),
        _card("RTX-5090-Laptop", 23.4, 896, 90.7, link=PCIE5, capability="12.0"),
    )
}
"""The cards by name."""
UNIFIED = frozenset({"GB10"})
"""Cards that share their memory with the CPU."""


def is_advised(card: Card) -> bool:
    """Whether a card may be advised to a person whose models do not fit: one that can be put into a
    machine, and that computes in bf16."""
    is_old = card.capability is None or float(card.capability) < 8.0
    return not is_old and "Laptop" not in card.name and card.name not in UNIFIED
