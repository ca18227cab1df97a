"""The cards that are known by name: their memory, bandwidth, operations and compute capability.

Memory is the total that CUDA reports, because plans have to fit into that: the lowest total found for
the card in public logs (PyTorch, llama.cpp, hashcat), rounded down. Logs of Windows were left out,
because CUDA reports more there. nvidia-smi shows more as well. A card with ECC on has less memory than
with ECC off. Where no log was found, the comment says which card's memory was taken.

Where the figures stand, as looked up on 2026-11-30 in stored copies of public pages and code:

- Pages are named by their site, files by repository and path. Where no source is named beside a
  figure, it is from a file of a public repository that the search showed without its name.
- Capability: developer.nvidia.com/cuda-gpus and cuda-legacy-gpus; A30 cnblogs.com/nightnine; A800,
  H20, A10G and RTX 5090 D by files without a name. H800, RTX A4500, RTX 4090 D and laptops are taken
  from other cards of the same chip.
- Bandwidth of GeForce cards and laptops: CYBIRD-D/How-to-Choose-your-LLM-Model-for-translation,
  Nvidia_GPU_Specification.md; RTX 2080 Ti by a file without a name. RTX 5090 D: the 5090, since they
  differ in tensor operations only (inkl.com, which says so of the first 5090 D, not of the V2).
- Operations are dense bf16 with fp32 accumulation, or fp16 where a card has no bf16. Those of GeForce
  cards are by arithmetic, twice the 32-bit rate (the factor is in hmc-tech.com's comparisons), and the
  rate is in huggingface/huggingface.js, packages/tasks/src/hardware-nvidia.ts; those of the RTX 3080
  of 10 GB and the 4090 D are in files without a name. RTX 2080 Ti: twice the fp16 rate that is in
  hardware-nvidia.ts. RTX 5050: not looked up, but from memory.
- PCIe: winston-zhang-orz/gpu-specs, specs.md for T4, V100, A100, H100, L40S, L4 and A10; mullet.se for
  L40; topcpu.net for RTX 5090 and 4090 D; deltiasgaming.com for the eight lanes of the RTX 5060 Ti. All
  others are not looked up, but from memory.

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
"""Bytes per second from a Grace CPU's RAM to its GPU, in one direction (GH200: half of the 900 GB/s at
spheron.network)."""


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
        # T4 and V100: winston-zhang-orz/gpu-specs, specs.md (V100 as SXM2), but the T4's bandwidth is
        # from sysrqmts.com. CUDA: 14,912 MiB; 16,130; 32,494.
        _card("T4", 14.5, 320, 65, link=PCIE3, capability="7.5"),
        _card("V100-16GB", 15.7, 900, 125, link=PCIE3, capability="7.0"),
        _card("V100-32GB", 31.7, 900, 125, link=PCIE3, capability="7.0"),
        # A100: winston-zhang-orz/gpu-specs, specs.md (SXM; the PCIe card of 80 GB has 1,935 GB/s).
        # CUDA: 39.38 GiB; 79.14 (which does not name its card; a log that names it has 81,151 MiB).
        _card("A100-40GB", 39.3, 1555, 312, link=PCIE4, capability="8.0"),
        _card("A100-80GB", 79.1, 2039, 312, link=PCIE4, capability="8.0"),
        # A800 and H800: an A100 and an H100 with slower links between GPUs (citsjtu2020/LLM-Prof,
        # hardware_spec.md; H800 also astroC86/gpu-datasheet; A800 of 40 GB cputronic.com). nvidia-smi
        # shows the memory of the A100 and the H100: 81,920 MiB and 81,559; no log of CUDA was found, so
        # theirs is taken here. H800-PCIe: not looked up, taken from the H100-PCIe.
        _card("A800-80GB", 79.1, 2039, 312, link=PCIE4, capability="8.0"),
        _card("A800-40GB", 39.3, 1555, 312, link=PCIE4, capability="8.0"),
        _card("H800-80GB", 79.1, 3350, 989, link=PCIE5, capability="9.0"),
        _card("H800-PCIe-80GB", 79.1, 2000, 756, link=PCIE5, capability="9.0"),
        # H100 and H200, SXM: astroC86/gpu-datasheet, with sparsity, so halved. CUDA: 81,081 MiB, and
        # 79.14 GiB in the log above; 139.72 GiB (which does not name its card; another log has 143,156
        # MiB).
        _card("H100-80GB", 79.1, 3350, 989, link=PCIE5, capability="9.0"),
        _card("H200-141GB", 139.7, 4800, 989, link=PCIE5, capability="9.0"),
        # H100 PCIe: archive-lib.hpctech.co.jp; memory as SXM, with the same 81,559 MiB in nvidia-smi.
        # H100 NVL: 1,671 TFLOPS with sparsity, so halved, 3,938 GB/s (from NVIDIA's product brief), and
        # CUDA 93.00 GiB (github.com/ali-vilab/VACE/issues/56). H200 NVL: nvidia-smi as the H200, so its
        # memory; operations not looked up, taken from the H100 NVL. H20: zangshuxian.com; CUDA 97,285
        # MiB. GH200: CUDA 94.5 GiB and the link (spheron.network); bandwidth not looked up, operations
        # taken from the H100.
        _card("H100-PCIe-80GB", 79.1, 2000, 756, link=PCIE5, capability="9.0"),
        _card("H100-NVL-94GB", 92.9, 3938, 835, link=PCIE5, capability="9.0"),
        _card("H200-NVL-141GB", 139.7, 4800, 835, link=PCIE5, capability="9.0"),
        _card("H20-96GB", 94.9, 4000, 148, link=PCIE5, capability="9.0"),
        _card("GH200-96GB", 94.4, 4000, 989, link=NVLINK_C2C, capability="9.0"),
        # B200, B300 and GB200: bandwidth and operations in glennklockwood.com/garden/processors. CUDA:
        # 178.35 GiB (182,631 MiB in nvidia-smi); 267.69; 184.31.
        _card("B200-180GB", 178.3, 8000, 2250, link=PCIE5, capability="10.0"),
        _card("B300-288GB", 267.6, 8000, 2250, link=PCIE5, capability="10.3"),
        _card("GB200-186GB", 184.3, 8000, 2500, link=NVLINK_C2C, capability="10.0"),
        # GB10 (DGX Spark): 273 GB/s and 1 PFLOPS in sparse FP4 (blog.kubesimplify.com), so an eighth in
        # bf16 by arithmetic. It shares its memory with the CPU, and CUDA reports 122,502 MiB.
        _card("GB10", 119.6, 273, 125, link=PCIE5, capability="12.1"),
        # L40S and L40: a copy of the data sheet at mullet.se; L4: specs.md. CUDA: 44.34 GiB (which does
        # not name its card; L40S 44.39); L40 44.4, taken as the L40S; 22.03. A40: a copy of the data
        # sheet at ecer.com, and CUDA 45,416 MiB.
        _card("L40S", 44.3, 864, 362, link=PCIE4, capability="8.9"),
        _card("L40", 44.3, 864, 181, link=PCIE4, capability="8.9"),
        _card("L4", 22.0, 300, 121, link=PCIE4, capability="8.9"),
        _card("A40", 44.3, 696, 149.7, link=PCIE4, capability="8.6"),
        # A30: 933 GB/s; operations by arithmetic from its 56 SMs and 1,440 MHz in a file without a name
        # and the A100's rate per SM; CUDA 23.49 GiB. A10: specs.md, and 21.99 GiB
        # (github.com/zai-org/CogVLM/issues/236). A10G, Amazon's: 600 GB/s (baseten.co, which says that
        # it has fewer tensor operations than an A10; the 70 TFLOPS are not looked up), and 22,587 MiB.
        _card("A30", 23.4, 933, 165, link=PCIE4, capability="8.0"),
        _card("A10", 21.9, 600, 125, link=PCIE4, capability="8.6"),
        _card("A10G", 22.0, 600, 70, link=PCIE4, capability="8.6"),
        # Workstation cards have four times their 32-bit rate (hardware-nvidia.ts) by arithmetic. A6000:
        # 768 GB/s (sipoch.com), CUDA 44.55 GiB, so with ECC on, or 47.40. A5000: 768 GB/s (topcpu.net),
        # memory with ECC on as the A10, because nvidia-smi shows 23,028 MiB for both
        # (VladislavDuma/gpu_specs). 6000 Ada: VladislavDuma/gpu_specs, and 44.43 GiB with ECC on
        # (github.com/DINGYANB/MTVCrafter/issues/21).
        _card("RTX-A6000", 44.5, 768, 154.8, link=PCIE4, capability="8.6"),
        _card("RTX-A5000", 21.9, 768, 111, link=PCIE4, capability="8.6"),
        _card("RTX-6000-Ada", 44.4, 960, 364, link=PCIE4, capability="8.9"),
        # A4000: a copy of the data sheet at ecer.com, and CUDA 15.61 GiB
        # (github.com/DengKaiCQ/VGGT-Long/issues/6). A4500: 640 GB/s (cputronic.com); no log was found,
        # so its memory is not looked up. 4000 Ada: memory not looked up; with ECC on, nvidia-smi shows
        # 19,195 MiB, less than stands here.
        _card("RTX-A4000", 15.6, 448, 76.7, link=PCIE4, capability="8.6"),
        _card("RTX-A4500", 19.6, 640, 94.6, link=PCIE4, capability="8.6"),
        _card("RTX-4000-Ada", 19.5, 360, 106.9, link=PCIE4, capability="8.9"),
        # RTX PRO 6000: 4,000 TOPS in sparse FP4 and 1,792 GB/s (topcpu.net, gpu.name); Max-Q 3,511 TOPS
        # and 1,792; an eighth in bf16 by arithmetic. Server: 1,597 GB/s and 120 TFLOPS in 32 bits, so
        # four times that. CUDA: 97,247 MiB; the Server's is taken from these.
        _card("RTX-PRO-6000", 94.9, 1792, 500, link=PCIE5, capability="12.0"),
        _card("RTX-PRO-6000-Max-Q", 94.9, 1792, 439, link=PCIE5, capability="12.0"),
        _card("RTX-PRO-6000-Server", 94.9, 1597, 480, link=PCIE5, capability="12.0"),
        # GeForce 20 and 30. CUDA, in MiB: 10,825; RTX 3060 11,906; 3060 Ti 7,833; 3070 7,819; 3070 Ti
        # 7,840; 3080 9.62 GiB, of 12 GB 11.6 GiB; 3080 Ti 11,910; 3090 24,123; 3090 Ti 24,112. No log
        # was found of the 3060 with 8 GB: the 3070's is taken.
        _card("RTX-2080-Ti", 10.5, 616, 53.8, link=PCIE3, capability="7.5"),
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
        # GeForce 40. CUDA, in MiB: RTX 4060 7,807; 4060 Ti 7,806, of 16 GB 15,944; 4070 11,866; 4080
        # 15,945; 4080 SUPER 15,937; 4090 23.49 GiB; 4090 D 24,111. Of the 4070 SUPER, 4070 Ti and 4070
        # Ti SUPER only logs of Windows or of older drivers were found: the memory of the 4070 and of
        # the 4080 is taken.
        _card("RTX-4060", 7.6, 272, 30.2, link=PCIE4_X8, capability="8.9"),
        _card("RTX-4060-Ti-8GB", 7.6, 288, 44.1, link=PCIE4_X8, capability="8.9"),
        _card("RTX-4060-Ti-16GB", 15.5, 288, 44.1, link=PCIE4_X8, capability="8.9"),
        _card("RTX-4070", 11.5, 504, 58.3, link=PCIE4, capability="8.9"),
        _card("RTX-4070-SUPER", 11.5, 504, 71, link=PCIE4, capability="8.9"),
        _card("RTX-4070-Ti", 11.5, 504, 80.2, link=PCIE4, capability="8.9"),
        _card("RTX-4070-Ti-SUPER", 15.5, 672, 88.2, link=PCIE4, capability="8.9"),
        _card("RTX-4080", 15.5, 717, 97.5, link=PCIE4, capability="8.9"),
        _card("RTX-4080-SUPER", 15.5, 736, 104.4, link=PCIE4, capability="8.9"),
        _card("RTX-4090", 23.4, 1008, 165.2, link=PCIE4, capability="8.9"),
        _card("RTX-4090-D", 23.5, 1008, 147, link=PCIE4, capability="8.9"),
        # GeForce 50. CUDA, in MiB: RTX 5060 Ti of 16 GB 15,825; 5070 11,755; 5070 Ti 15,808; 5080
        # 15,840; 5090 32,109. Of cards with 8 GB only logs of Windows were found (8,150 MiB): 472 MiB
        # less are taken, as the 5070 has in Linux. 5090 D: memory from the 5090; operations are the
        # 5090's times the ratio of both in bf16, 340.5 to 369.9, as measured by mmapeak.
        _card("RTX-5050", 7.5, 320, 26.3, link=PCIE5_X8, capability="12.0"),
        _card("RTX-5060", 7.5, 448, 38.4, link=PCIE5_X8, capability="12.0"),
        _card("RTX-5060-Ti-16GB", 15.4, 448, 47.4, link=PCIE5_X8, capability="12.0"),
        _card("RTX-5060-Ti-8GB", 7.5, 448, 47.4, link=PCIE5_X8, capability="12.0"),
        _card("RTX-5070", 11.4, 672, 61.7, link=PCIE5, capability="12.0"),
        _card("RTX-5070-Ti", 15.4, 896, 87.9, link=PCIE5, capability="12.0"),
        _card("RTX-5080", 15.4, 960, 112.6, link=PCIE5, capability="12.0"),
        _card("RTX-5090", 31.3, 1792, 209.5, link=PCIE5, capability="12.0"),
        _card("RTX-5090-D", 31.3, 1792, 192.8, link=PCIE5, capability="12.0"),
        # Laptops: other chips than the cards of the same name, with less memory. CUDA, in MiB: RTX 3060
        # 5,806; 4050 5.67 GiB; 4060 7,806; 4070 7,806. The others are taken from cards of the same size
        # and generation. Operations are by arithmetic from the highest clock, which is at hmc-tech.com
        # for the RTX 4050, 4060, 4070, 4090, 5080 and 5090, and at apicsud.com for the 4080. The clocks
        # of all other laptops are not looked up, but from memory.
        _card("RTX-3060-Laptop", 5.6, 336, 26.2, link=PCIE4, capability="8.6"),
        _card("RTX-3070-Laptop", 7.6, 448, 33.2, link=PCIE4, capability="8.6"),
        _card("RTX-3070-Ti-Laptop", 7.6, 448, 35, link=PCIE4, capability="8.6"),
        _card("RTX-3080-Laptop-8GB", 7.6, 448, 42, link=PCIE4, capability="8.6"),
        _card("RTX-3080-Laptop-16GB", 15.5, 448, 42, link=PCIE4, capability="8.6"),
        _card("RTX-3080-Ti-Laptop", 15.5, 512, 47.2, link=PCIE4, capability="8.6"),
        _card("RTX-4050-Laptop", 5.6, 192, 23.3, link=PCIE4_X8, capability="8.9"),
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
