"""Published measurements of engines: tokens per second, starts and wakes. Facts, each with its source.

`speed.py` was fitted to the rows with `fitted=True`. All other rows are held back, to verify it. Most
pages were read as stored copies or excerpts. Nothing here was measured by this project.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from cluster.cards.card import Card
from cluster.cards.catalog import card_by_name
from cluster.cards.tensor_parallel import join_cards
from cluster.plan.checkpoint import Attention, Checkpoint

CARDS_HUB = "https://huggingface.co/neuralmagic/"
DISTILL = CARDS_HUB + "DeepSeek-R1-Distill-"
QWEN25 = "https://qwen.readthedocs.io/en/v2.5/benchmark/speed_benchmark.html"
QWEN3 = "https://qwen.readthedocs.io/en/latest/getting_started/speed_benchmark.html"
VULTR = "https://docs.vultr.com/inference-cookbook/cuda/optimization/concurrency-tuning"
GPUSTACK = "https://docs.gpustack.ai/latest/performance-lab/"
SPARK = "https://www.lyb.re/writing/2026-03-10-dgx-spark-vllm"
MILLSTONE = (
    "https://www.millstoneai.com/inference-benchmark/gpt-oss-20b-mxfp4-1x-rtx-pro-6000-blackwell"
)
WIDTHS = {16: 16.0, 8: 8.0, 4: 4.125}
"""Bits of a weight as stored. Weights in 4 bits have one 16-bit scale for each group of 128."""
GB10 = Card("GB10", int(119e9), kind="gpu", bandwidth=273e9, flops=62e12, capability="12.1")
"""The GPU of a DGX Spark, which shares the host's RAM. The catalog leaves it out."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The dimensions of a model in its Hugging Face config.json."""

    layers: int
    hidden: int
    ffn: int
    vocab: int
    query_width: int
    kv_width: int
    tied: bool = False
    """Whether the output layer uses the input embeddings."""
    experts: int = 1
    experts_used: int = 1
    weight_bytes: int = 0
    """Bytes of the published files, where not all weights have the same number of bits."""

    def checkpoint(self, bits: int) -> Checkpoint:
        """The model with linear layers of `bits` bits, and tables of tokens of 16 bits."""
        table = 2 * self.vocab * self.hidden
        weights = self.hidden * self.layers * (2 * self.query_width + self.kv_width)
        weights += 3 * self.hidden * self.ffn * self.layers * self.experts
        stored = int(weights * WIDTHS[bits] / 8) + (table if self.tied else 2 * table)
        return Checkpoint(
            weight_bytes=self.weight_bytes or stored,
            layers=self.layers,
            hidden=self.hidden,
            ffn=self.ffn,
            vocab=self.vocab,
            query_width=self.query_width,
            attention=(Attention(self.layers, self.kv_width),),
            lookup_bytes=0 if self.tied else table,
            experts=self.experts,
            experts_used=self.experts_used,
        )


SHAPES = {
    "R1-Distill-Qwen-1.5B": Shape(28, 1536, 8960, 151936, 1536, 512),
    "R1-Distill-Qwen-7B": Shape(28, 3584, 18944, 152064, 3584, 1024),
    "R1-Distill-Llama-8B": Shape(32, 4096, 14336, 128256, 4096, 2048),
    "R1-Distill-Qwen-14B": Shape(48, 5120, 13824, 152064, 5120, 2048),
    "R1-Distill-Qwen-32B": Shape(64, 5120, 27648, 152064, 5120, 2048),
    "R1-Distill-Llama-70B": Shape(80, 8192, 28672, 128256, 8192, 2048),
    "granite-3.1-8b": Shape(40, 4096, 12800, 49155, 4096, 2048, tied=True),
    "granite-3.1-2b": Shape(40, 2048, 8192, 49155, 2048, 1024, tied=True),
    "Qwen2.5-0.5B": Shape(24, 896, 4864, 151936, 896, 256, tied=True),
    "Qwen2.5-1.5B": Shape(28, 1536, 8960, 151936, 1536, 512, tied=True),
    "Qwen2.5-3B": Shape(36, 2048, 11008, 151936, 2048, 512, tied=True),
    "Qwen2.5-7B": Shape(28, 3584, 18944, 152064, 3584, 1024),
    "Qwen2.5-14B": Shape(48, 5120, 13824, 152064, 5120, 2048),
    "Qwen2.5-32B": Shape(64, 5120, 27648, 152064, 5120, 2048),
    "Qwen2.5-72B": Shape(80, 8192, 29568, 152064, 8192, 2048),
    "Qwen3-1.7B": Shape(28, 2048, 6144, 151936, 2048, 2048, tied=True),
    "Qwen3-4B": Shape(36, 2560, 9728, 151936, 4096, 2048, tied=True),
    "Qwen3-8B": Shape(36, 4096, 12288, 151936, 4096, 2048),
    "Qwen3-14B": Shape(40, 5120, 17408, 151936, 5120, 2048),
    "Qwen3-32B": Shape(64, 5120, 25600, 151936, 8192, 2048),
    "Qwen3-30B-A3B": Shape(48, 2048, 768, 151936, 4096, 1024, experts=128, experts_used=8),
    # Its layers differ. The feed-forward width is the one that gives 49.9e9 parameters in all.
    "Nemotron-Super-49B": Shape(80, 8192, 18200, 128256, 8192, 2048),
    "gpt-oss-20b": Shape(
        24, 2880, 2880, 201088, 4096, 1024, experts=32, experts_used=4, weight_bytes=13_760_000_000
    ),
    "gpt-oss-120b": Shape(
        36, 2880, 2880, 201088, 4096, 1024, experts=128, experts_used=4, weight_bytes=65_200_000_000
    ),
}


@dataclass(frozen=True, slots=True)
class Speed:
    """One measurement of decoding."""

    model: str
    bits: int
    """Bits of a weight: 16, 8 or 4."""
    card: str
    rate: float
    """Tokens per second, of all sequences together."""
    source: str
    engine: str = "vLLM"
    gpus: int = 1
    sequences: int = 1
    tokens: int = 768
    """Mean length of a sequence while it was measured; the published one, or a guess of this order."""
    fitted: bool = False
    miss: str = ""
    """Why the prediction is expected to be wrong by more than a factor of 1.5; empty if it is not."""

    def __str__(self) -> str:
        """A name of the row, for pytest."""
        many = f" x{self.sequences}" if self.sequences > 1 else ""
        return f"{self.model}-{self.bits}bit-{self.gpus}-{self.card}{many}"

    @property
    def on(self) -> Card:
        """The card, or `gpus` of them joined."""
        if self.card == GB10.name:
            return GB10
        (card,) = join_cards([card_by_name(self.card, n) for n in range(self.gpus)], self.gpus)
        return card


def _seconds(
    name: str, source: str, card: str, *answer_s: float | None, fitted: bool = False, gpus: int = 1
) -> Iterator[Speed]:
    """Rows of a model card of Red Hat: seconds for 1,024 tokens with weights of 16, 8 and 4 bits.

    GuideLLM measured them with one request of 256 tokens at a time. 8 bits are w8a8 or, on the H100 and
    L40, FP8; 4 bits are w4a16. DeepSeek's distilled models ran in vLLM 0.7.2, granite in 0.6.6.
    """
    for bits, took_s in zip(WIDTHS, answer_s, strict=True):
        if took_s is not None:
            yield Speed(name, bits, card, 1024 / took_s, source, "vLLM", gpus, fitted=fitted)


def _fitted() -> Iterator[Speed]:
    names = {
        "Qwen-1.5B": "quantized.w4a16",
        "Qwen-7B": "quantized.w4a16",
        "Llama-8B": "quantized.w8a8",
        "Qwen-14B": "quantized.w4a16",
        "Qwen-32B": "quantized.w4a16",
        "Llama-70B": "FP8-dynamic",
    }
    rows: dict[str, tuple[tuple[float | None, ...], ...]] = {
        "RTX-A6000": (
            (6.4, 5.3, 4.3),
            (22.6, 14.3, 8.6),
            (23.6, 15.2, 9.1),
            (42.2, 26.5, 15.3),
            (None, 54.8, 29.7),
        ),
        "A100-80GB": (
            (4.7, 4.5, 4.5),
            (11.5, 8.6, 6.1),
            (12.1, 9.0, 6.4),
            (20.8, 14.8, 9.7),
            (44.0, 29.0, 17.4),
            (None, None, 35.3),
        ),
        "H100-80GB": (
            (3.3, 3.2, 4.1),
            (7.5, 5.3, 5.4),
            (7.6, 5.7, 5.6),
            (12.8, 9.3, 9.1),
            (26.6, 17.3, 16.1),
            (None, None, 31.2),
        ),
    }
    for card, models in rows.items():
        for name, answer_s in zip(names, models, strict=False):
            source = f"{DISTILL}{name}-{names[name]}"
            yield from _seconds(f"R1-Distill-{name}", source, card, *answer_s, fitted=True)


def _held_back() -> Iterator[Speed]:
    large, source = "R1-Distill-Llama-70B", DISTILL + "Llama-70B-FP8-dynamic"
    yield from _seconds(large, source, "A100-80GB", 50.4, 32.4, None, gpus=2)
    yield from _seconds(large, source, "H100-80GB", 30.0, 21.1, None, gpus=2)
    yield from _seconds(large, source, "RTX-A6000", None, None, 38.9, gpus=2)
    yield from _seconds(large, source, "RTX-A6000", 57.2, None, None, gpus=4)
    small, source = "granite-3.1-8b", CARDS_HUB + "granite-3.1-8b-base-quantized.w4a16"
    yield from _seconds(small, source, "RTX-A5000", 28.3, 17.7, 10.3)
    yield from _seconds(small, source, "RTX-A6000", 25.8, 17.4, 10.0)
    yield from _seconds(small, source, "A100-80GB", 13.6, 10.4, 7.3)
    yield from _seconds(small, source, "L40", 25.1, 16.8, 8.9)
    small, source = "granite-3.1-2b", CARDS_HUB + "granite-3.1-2b-instruct-quantized.w4a16"
    yield from _seconds(small, source, "RTX-A5000", 10.9, 7.9, 5.4)
    yield from _seconds(small, source, "RTX-A6000", 9.8, 7.8, 5.1)
    yield from _seconds(small, source, "L40", 9.3, 7.3, 4.8)
    # Qwen2.5: vLLM 0.6.3, A100-80GB, prompt of 1 token, 2,048 written. 4 bits: AWQ, 8 bits: GPTQ.
    for size, rates in {
        "0.5B": (311.55, None, None),
        "1.5B": (183.33, None, None),
        "3B": (127.61, None, None),
        "7B": (84.28, 122.01, 148.10),
        "14B": (46.30, 70.40, 92.66),
        "32B": (22.13, 37.57, 51.92),
    }.items():
        for bits, rate in zip(WIDTHS, rates, strict=True):
            if rate is not None:
                yield Speed(
                    f"Qwen2.5-{size}", bits, "A100-80GB", rate, QWEN25, "vLLM 0.6.3", tokens=1024
                )


def _others() -> Iterator[Speed]:
    for size, rate in {"7B": 154.05, "14B": 98.02, "32B": 55.83}.items():
        yield Speed(f"Qwen2.5-{size}", 4, "A100-80GB", rate, QWEN25, "vLLM 0.6.3, GPTQ", tokens=1024)
    for bits, gpus, rate in ((16, 4, 31.37), (8, 2, 31.40), (4, 2, 44.30)):
        yield Speed("Qwen2.5-72B", bits, "A100-80GB", rate, QWEN25, "vLLM 0.6.3", gpus, tokens=1024)
    odd = "the same page has 46.30 for the same weights on two A100s, which is 2.8 times as fast"
    yield Speed("Qwen2.5-72B", 4, "A100-80GB", 16.47, QWEN25, "vLLM 0.6.3, GPTQ", tokens=1024, miss=odd)
    issue = "https://github.com/"
    yield Speed(
        "Qwen3-1.7B", 16, "A100-80GB", 213.7, issue + "tenstorrent/tt-inference-server/issues/340"
    )
    yield Speed(
        "Qwen3-30B-A3B", 16, "A100-80GB", 103.4, issue + "tenstorrent/tt-inference-server/issues/340"
    )
    yield Speed("Qwen3-4B", 16, "RTX-4090", 96.0, issue + "tenstorrent/tt-inference-server/issues/394")
    yield Speed("Qwen3-4B", 8, "RTX-4090", 138.5, issue + "noonghunna/club-3090/issues/697")
    yield Speed("Qwen3-8B", 16, "RTX-4090", 58.7, issue + "AlexsJones/llmfit/issues/1046")
    # Qwen3-VL-30B-A3B, whose language model this is.
    blackwell = "https://joshua8.ai/vllm-v016-blackwell-throughput-benchmark"
    yield Speed("Qwen3-30B-A3B", 4, "RTX-5090", 259.3, blackwell, "vLLM 0.16.0rc2")
    yield Speed("Qwen3-30B-A3B", 4, "RTX-5090", 241.0, blackwell, "vLLM 0.15.1")
    yield Speed("gpt-oss-20b", 4, "RTX-PRO-6000", 250.0, MILLSTONE, tokens=1536)
    yield Speed("gpt-oss-120b", 4, "GB10", 58.0, "https://conselara.dev/notes/dgx-spark-benchmarks")
    yield Speed("Qwen3-8B", 16, "GB10", 13.1, SPARK)
    yield Speed("Qwen3-32B", 16, "GB10", 3.7, SPARK)
    yield Speed("Qwen3-30B-A3B", 8, "GB10", 52.0, SPARK)
    spark = "https://vllm.ai/blog/2026-06-01-vllm-dgx-spark (Llama-3.1-8B in FP8, about 20)"
    yield Speed("R1-Distill-Llama-8B", 8, "GB10", 20.0, spark)
    yield Speed("Nemotron-Super-49B", 8, "B200-180GB", 73.0, VULTR)
    yield Speed("Qwen3-8B", 16, "H100-80GB", 137.0, GPUSTACK + "qwen3-8b/h100-latency", "vLLM 0.11.0")


def _other_engines() -> Iterator[Speed]:
    """Other engines, on cards of which no measurement of vLLM was found."""
    slow = "SGLang on an H20 reaches about 0.35 of its nominal bandwidth with 16-bit weights"
    for model, bits, rate, miss in (
        ("Qwen3-8B", 16, 81.73, slow),
        ("Qwen3-14B", 16, 47.10, slow),
        ("Qwen3-32B", 16, 20.72, slow),
        ("Qwen3-32B", 8, 46.17, ""),
        ("Qwen3-32B", 4, 47.67, ""),
        ("Qwen3-30B-A3B", 16, 137.18, ""),
    ):
        yield Speed(model, bits, "H20-96GB", rate, QWEN3, "SGLang", tokens=1024, miss=miss)
    pro = "https://treeru.com/en/blog/awq-quantization-speed-comparison"
    for model, bits, rate in (
        ("Qwen3-8B", 16, 90.8),
        ("Qwen3-8B", 4, 208.0),
        ("Qwen3-32B", 16, 23.9),
        ("Qwen3-32B", 4, 70.2),
        ("Qwen3-30B-A3B", 16, 168.9),
    ):
        yield Speed(model, bits, "RTX-PRO-6000", rate, pro, "SGLang 0.5.8")


def _batches() -> Iterator[Speed]:
    """Several sequences at a time."""
    h100 = GPUSTACK + "qwen3-8b/h100-latency"
    for sequences, answer_s in ((2, 1.68), (4, 1.68), (8, 1.78)):
        rate = sequences * 220.6 / answer_s
        yield Speed(
            "Qwen3-8B", 16, "H100-80GB", rate, h100, "vLLM 0.11.0", sequences=sequences, tokens=400
        )
    marlin = "https://huggingface.co/ExceedZhang/DeepSeek-R1-Distill-Qwen-32B-W4A16-G128"
    yield Speed(
        "R1-Distill-Qwen-32B",
        4,
        "RTX-4090",
        1700.0,
        marlin,
        "not named",
        gpus=2,
        sequences=128,
        tokens=400,
    )
    matrix = "https://huggingface.co/datasets/jahnclawdmonet/blackwell-sm120-serving-matrix"
    yield Speed("Qwen3-8B", 16, "RTX-PRO-6000", 1725.0, matrix, "vLLM 0.27.1", sequences=32)
    yield Speed("Nemotron-Super-49B", 8, "B200-180GB", 570.0, VULTR, sequences=8)
    yield Speed("gpt-oss-20b", 4, "RTX-PRO-6000", 642.5, MILLSTONE, sequences=5, tokens=1536)
    yield Speed(
        "Qwen3-14B", 16, "A100-80GB", 4616.0, GPUSTACK + "qwen3-14b/a100", "vLLM 0.11", sequences=256
    )


SINGLE = (*_fitted(), *_held_back(), *_others())
"""vLLM with one sequence."""
OTHER_ENGINES = tuple(_other_engines())
BATCHES = tuple(_batches())

PROFILER = (
    "arXiv 2606.07362, github.com/upb-cn/vllm-startup-profiler (A100, vLLM 0.10.1, compiled before)"
)
STARTS = {
    # name: (layers, GB of weights, seconds until the engine was ready)
    "qwen-0.5b": (24, 1.2, 33.8),
    "qwen-1.8b": (24, 3.7, 35.6),
    "llama3-3b": (28, 6.4, 40.4),
    "qwen-4b": (40, 7.9, 47.1),
    "yi-6b": (32, 12.1, 43.8),
    "llama2-7b": (32, 13.5, 45.0),
    "qwen-7b": (32, 15.4, 46.7),
    "falcon-7b": (32, 14.4, 45.2),
    "yi-9b": (48, 17.7, 54.3),
    "llama2-13b": (40, 26.0, 58.7),
    "qwen-14b": (40, 28.3, 60.9),
}
"""Starts of vLLM, from `PROFILER`. Some bytes are the usual two per parameter."""

BLOG = "https://blog.vllm.ai/2025/10/26/sleep-mode.html (A100, vLLM 0.11)"
WAKES = (
    # GB of weights, card, GPUs, seconds, source
    (61.0, "A100-80GB", 1, 2.87, BLOG),
    (237.0, "A100-80GB", 4, 5.46, BLOG),
    (68.7, "A100-80GB", 1, 3.0, "llm-d-incubation/llm-d-fast-model-actuation: 64 GiB; card not named"),
    (49.8, "H100-80GB", 1, 1.46, "github.com/OpenRLHF/OpenRLHF/issues/1065: 46.35 GiB"),
)
