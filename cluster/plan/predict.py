"""A prediction from the roofline: bytes over bandwidth, operations over rate, weights over the link.

It is arithmetic with stated efficiencies, not a measurement. Engines that share a card share its
bandwidth, so their times add up; cards work side by side. A joined card is taken for as fast as its
GPUs together: what they wait for each other's sums is not counted.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cluster.cards.card import Card
from cluster.plan.checkpoint import Checkpoint
from cluster.plan.footprint import kv_bytes, kv_tokens_of
from cluster.plan.placement import Location, Placement, Slot
from configs.schema import Recipe, Sampling

# Share of the nominal bandwidth that decoding reaches. Qwen2.5's speed benchmark (A100-80GB, vLLM,
# one sequence): 7B and 14B in bf16 84.28 and 46.30 tokens/s are 0.58 and 0.64; in AWQ 148.10 and
# 92.66 are 0.33 and 0.38; 72B in GPTQ 16.47 is 0.32.
READS = 0.6
READS_QUANTIZED = 0.35
# Of the nominal operations: prefill of large batches; usual for dense models in bf16.
OPERATIONS = 0.5
# Of PCIe's nominal rate: 64 GiB in about 3 s is 0.73 of gen 4 (llm-d fast-model-actuation); 46.35
# GiB woken in 1.46 s is 0.54 of gen 5 (OpenRLHF#1065).
LINK = 0.6
DISK = 1e9  # bytes per second, where sleeping means unloading: an SSD, or files in the page cache

# Means over the 805 prompts of AlpacaEval in cl100k tokens, from length_stats.csv: INSTRUCTION; the
# 70B-class single models (Qwen2-72B 347, Llama-3.1-70B 444); Shopee-SlimMoA-v1.
PROMPTS = 805
QUESTION_TOKENS = 36
PROPOSAL_TOKENS = 395
ANSWER_TOKENS = 423
INSTRUCTION_TOKENS = 150  # the aggregation prompt and the marks around each reference, about


@dataclass(frozen=True, slots=True)
class Speed:
    """One replica. wake_s: to wake it, 0 if it is never asleep; single, batch: tokens per second of
    one sequence, and of `sequences` together."""

    model: str
    replica: int
    wake_s: float
    single: float
    batch: float
    sequences: int


@dataclass(frozen=True, slots=True)
class Prediction:
    """speeds: by replica; hours: for the whole AlpacaEval set; swaps: within it."""

    speeds: tuple[Speed, ...]
    hours: float
    swaps: int


@dataclass(frozen=True, slots=True)
class Load:
    """Calls of a model in one stage, and the mean tokens of each."""

    model: str
    calls: int
    tokens_in: int
    tokens_out: int


def predict(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint], placement: Placement
) -> Prediction | None:
    """The prediction; None if the speed of some card is unknown, or a model is elsewhere."""
    cards = [placed.card for placed in placement.cards if placed.slots]
    if placement.elsewhere or not all(card.bandwidth and card.flops for card in cards):
        return None
    speeds = tuple(_speed(recipe, checkpoints, placement, seat) for seat in placement.seats())
    seconds, swaps = 0.0, 0
    for stage in _stages(recipe):
        busy = [0.0] * len(placement.cards)
        for seat in placement.seats():
            slot = placement.cards[seat.card].slots[seat.slot]
            for load in (load for load in stage if load.model == seat.member.model):
                busy[seat.card] += _serving_s(recipe, checkpoints, placement, seat, load)
                if slot.takes_turns:
                    busy[seat.card] += 2 * wake_s(placement.cards[seat.card].card, slot, seat)
                    swaps += 1
        seconds += max(busy)
    return Prediction(speeds, seconds / 3600, swaps)


def wake_s(card: Card, slot: Slot, seat: Location) -> float:
    """Seconds to wake a member of a slot of turns; falling asleep takes about as long."""
    if card.kind == "cpu":
        return 0.0 if slot.keeps_loaded else seat.member.weights / DISK
    return seat.member.weights / (LINK * (card.link or DISK))


def decode_rate(checkpoint: Checkpoint, card: Card, sequences: int, cache_bytes: float) -> float:
    """Tokens per second of so many sequences, whose KV caches hold `cache_bytes` in all."""
    assert card.bandwidth is not None
    assert card.flops is not None
    reads = READS_QUANTIZED if checkpoint.quantized and card.kind == "gpu" else READS
    memory = checkpoint.read_bytes(sequences) / (reads * card.bandwidth)
    memory += cache_bytes / (READS * card.bandwidth)
    operations = 2 * checkpoint.active_parameters * sequences / (OPERATIONS * card.flops)
    return sequences / max(memory, operations)


def _stages(recipe: Recipe) -> Iterator[list[Load]]:
    references = 0
    for layer in recipe.layers:
        yield [
            _load(p.model, p.samples, references, p.sampling, PROPOSAL_TOKENS) for p in layer.proposers
        ]
        references = layer.samples
    aggregator = recipe.aggregator
    yield [_load(aggregator.model, 1, references, aggregator.sampling, ANSWER_TOKENS)]


def _load(model: str, samples: int, references: int, sampling: Sampling, tokens: int) -> Load:
    read = references * PROPOSAL_TOKENS + (INSTRUCTION_TOKENS if references else 0)
    return Load(model, PROMPTS * samples, QUESTION_TOKENS + read, min(tokens, sampling.max_tokens))


def _sequences(recipe: Recipe, model: str, tokens: int) -> int:
    """How many sequences of that length the cache holds, at most `concurrency`."""
    settings = recipe.models[model]
    return max(1, min(settings.concurrency, kv_tokens_of(settings) // max(1, tokens)))


def _cache_bytes(checkpoint: Checkpoint, tokens: int, sequences: int) -> float:
    return kv_bytes(checkpoint, tokens, 0, 2) * sequences


def _serving_s(
    recipe: Recipe,
    checkpoints: Mapping[str, Checkpoint],
    placement: Placement,
    seat: Location,
    load: Load,
) -> float:
    card, checkpoint = placement.cards[seat.card].card, checkpoints[load.model]
    assert card.flops is not None
    calls = load.calls / len(placement.seats(load.model))
    sequences = _sequences(recipe, load.model, load.tokens_in + load.tokens_out)
    cache = _cache_bytes(checkpoint, load.tokens_in + load.tokens_out // 2, sequences)
    prefill = 2 * checkpoint.active_parameters * load.tokens_in / (OPERATIONS * card.flops)
    return calls * (prefill + load.tokens_out / decode_rate(checkpoint, card, sequences, cache))


def _speed(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint], placement: Placement, seat: Location
) -> Speed:
    placed, member = placement.cards[seat.card], seat.member
    checkpoint, slot = checkpoints[member.model], placed.slots[seat.slot]
    tokens = QUESTION_TOKENS + PROPOSAL_TOKENS
    sequences = _sequences(recipe, member.model, tokens)
    rates: Sequence[float] = [
        decode_rate(checkpoint, placed.card, n, _cache_bytes(checkpoint, tokens // 2, n))
        for n in (1, sequences)
    ]
    wake = wake_s(placed.card, slot, seat) if slot.takes_turns else 0.0
    return Speed(member.model, member.replica, wake, rates[0], rates[1], sequences)
