"""The samples of a layer: who is asked how often, with which sampling seeds, and what each one reads.

Everything is derived from the answer's seed, so that the same seed gives the same calls again. Pure.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from configs.schema import Layer, Sampling
from serve_app.mixture.events import ProposalDone


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer that a proposer is asked for."""

    place: int
    """The number of the sample in its layer, from 0."""
    model: str
    sampling: Sampling


def seen_by(
    samples: Sequence[Sample], read: Sequence[ProposalDone], see: int | None, seed: int, layer: int
) -> dict[int, list[str]]:
    """The texts that each sample of a layer reads, by its place, if not all samples read the same texts
    (RSA, arXiv 2509.26626). Texts are drawn without replacement and stand in the order of the draw.

    Args:
        samples: the samples of the layer.
        read: the proposals of the layer before.
        see: how many proposals each sample reads; None if each reads all of them, and nothing is drawn.
        seed: the answer's seed.
        layer: number of the layer, from 1.
    """
    if see is None:
        return {}
    texts = [proposal.text for proposal in read]
    most = min(see, len(texts))
    return {
        sample.place: random.Random(f"{seed}/{layer}/{sample.place}/see").sample(texts, most)
        for sample in samples
    }


def samples_of(layer: Layer, number: int, seed: int, *, fixed: bool) -> list[Sample]:
    """The samples of a layer. The first case that holds decides the sampling seed of a sample:

    1. `fixed`, or the recipe gives no seed and the model has several samples in the layer, which might
       otherwise be copies of each other: the sampling seed is derived from `seed`.
    2. The recipe gives a seed: the sampling seeds of the proposer's samples count up from the recipe's.
    3. Otherwise there is no sampling seed.

    Args:
        layer: the layer.
        number: number of the layer, from 1.
        seed: the answer's seed.
        fixed: whether the client chose the answer's seed.
    """
    samples_by_model = layer.samples_by_model()
    samples: list[Sample] = []
    so_far = Counter[str]()
    for proposer in layer.proposers:
        for n in range(proposer.samples):
            sampling_seed = proposer.sampling.seed
            if fixed or (sampling_seed is None and samples_by_model[proposer.model] > 1):  # 1
                sampling_seed = sample_seed(seed, number, proposer.model, so_far[proposer.model])
            elif sampling_seed is not None:  # 2
                sampling_seed += n
            sampling = proposer.sampling.model_copy(update={"seed": sampling_seed})
            samples.append(Sample(len(samples), proposer.model, sampling))
            so_far[proposer.model] += 1
    return samples


def sample_seed(seed: int, layer: int, model: str, number: int) -> int:
    """Derive the sampling seed of a proposer's call from the seed of the answer.

    The sampling seed does not depend on the other proposers of the layer. So if a proposer is added or
    removed, the mixture asks the other proposers for the very same proposals.

    Args:
        seed: the answer's seed.
        layer: number of the layer, from 1.
        model: name of the model that proposes.
        number: number of the sample among the model's samples in the layer, from 0.
    """
    return random.Random(f"{seed}/{layer}/{model}/{number}").getrandbits(31)
