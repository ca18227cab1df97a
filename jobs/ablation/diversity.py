"""How different the proposals are that an aggregator reads.

Two proposals are as similar as their TF-IDF vectors of character 4-grams: the cosine, 0 to 1. Of
characters, not words, because rows may be in any language, some without spaces. Weights are learnt
once, so that the similarity of two proposals does not depend on which others stand beside them, and
variants of one mixture can be compared. It is the wording that is compared; the same said in other
words counts as different.
"""

import heapq
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

from jobs.records import Answer, UsedCall
from jobs.store import Store
from serve_app.mixture.references import without_reasoning

GRAM = 4
FEATURES = 2**20
LEARNT_FROM = 2000  # texts: bounds the memory, about 20 MB

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Diversity:
    """Of one mixture's proposals. rows: with any; proposals: how many a row has, on average.

    vendi: the Vendi Score (Friedman & Dieng, 2023), averaged over rows: the effective number of
    different proposals, from 1, where all say the same, to how many there are.
    """

    generator: str
    rows: int
    proposals: float | None
    vendi: float | None


@dataclass(frozen=True, slots=True)
class Similarity:
    """Of two models' proposals to the same row, or of two by the same model: the mean over pairs."""

    model: str
    other: str
    pairs: int
    value: float


@dataclass(frozen=True, slots=True)
class Diversities:
    """By mixture, and of every two models that proposed side by side."""

    mixtures: tuple[Diversity, ...]
    similarities: tuple[Similarity, ...]

    def vendi(self, generator: str) -> float | None:
        """The Vendi Score of a mixture, if it was measured."""
        return next((each.vendi for each in self.mixtures if each.generator == generator), None)

    def nearest(self, model: str, others: Collection[str]) -> tuple[str, float] | None:
        """Of other models, the one whose proposals are most similar to a model's, and how similar."""
        found = [
            (other, each.value)
            for each in self.similarities
            for one, other in ((each.model, each.other), (each.other, each.model))
            if one == model and other in others
        ]
        return max(found, key=lambda pair: pair[1], default=None)


def diversities(store: Store, generators: Sequence[str]) -> Diversities:
    """Of these mixtures' proposals to first turns, in the layer that the aggregator read.

    Weights are learnt from the first generator's proposals. Rows are streamed.
    """
    kernel = _Kernel(islice(_texts(store, generators[0]), LEARNT_FROM))
    sums = _Sums()
    for answers in _rows(store, generators):
        mixtures = {answer.generator: _proposals(answer) for answer in answers}
        keys = dict.fromkeys(used.key for some in mixtures.values() for used in some)
        if keys:
            sums.add(mixtures, list(keys), kernel.similarity([_text(store, key) for key in keys]))
    return sums.result(generators)


class _Sums:
    """What the rows have given so far."""

    def __init__(self) -> None:
        self._vendi: dict[str, list[float]] = defaultdict(list)
        self._counts: dict[str, list[int]] = defaultdict(list)
        self._similar: dict[tuple[str, str], list[float]] = defaultdict(list)

    def add(
        self, mixtures: Mapping[str, Sequence[UsedCall]], keys: Sequence[bytes], similarity: Floats
    ) -> None:
        """One row. keys: of the proposals that the similarity matrix is of."""
        place = {key: n for n, key in enumerate(keys)}
        for generator, some in mixtures.items():
            if some:
                at = [place[used.key] for used in some]
                self._vendi[generator].append(vendi_score(similarity[np.ix_(at, at)]))
                self._counts[generator].append(len(some))
        for one, other in _side_by_side(mixtures.values()):
            first, second = sorted((one.model, other.model))
            self._similar[first, second].append(float(similarity[place[one.key], place[other.key]]))

    def result(self, generators: Sequence[str]) -> Diversities:
        return Diversities(
            tuple(
                Diversity(g, len(self._vendi[g]), _mean(self._counts[g]), _mean(self._vendi[g]))
                for g in generators
            ),
            tuple(
                Similarity(*models, len(values), float(np.mean(values)))
                for models, values in sorted(self._similar.items())
            ),
        )


def _side_by_side(mixtures: Iterable[Sequence[UsedCall]]) -> Iterable[tuple[UsedCall, UsedCall]]:
    """Every two proposals that were in one mixture; once, in however many mixtures they were."""
    pairs = ((one, other) for some in mixtures for one, other in combinations(some, 2))
    return {frozenset((one.key, other.key)): (one, other) for one, other in pairs}.values()


def vendi_score(similarity: Floats) -> float:
    """The exponential of the entropy of the eigenvalues of K/n, for a similarity matrix K (n x n) that
    is positive semidefinite with ones on its diagonal."""
    shares = np.linalg.eigvalsh(similarity / len(similarity))
    shares = shares[shares > 0]  # rounding makes zeros slightly negative
    return float(np.exp(-(shares * np.log(shares)).sum()))


class _Kernel:
    def __init__(self, texts: Iterator[str]) -> None:
        self._hashing: Any = HashingVectorizer(
            analyzer="char_wb",
            ngram_range=(GRAM, GRAM),
            n_features=FEATURES,
            norm=None,
            alternate_sign=False,
        )
        self._weights: Any = TfidfTransformer(sublinear_tf=True)
        self._weights.fit(self._hashing.transform(list(texts) or [""]))

    def similarity(self, texts: Sequence[str]) -> Floats:
        """Of every two of the texts. A text without any characters is like no other."""
        vectors = self._weights.transform(self._hashing.transform(texts))
        similarity: Floats = (vectors @ vectors.T).toarray()
        np.fill_diagonal(similarity, 1)
        return similarity


def _rows(store: Store, generators: Sequence[str]) -> Iterator[list[Answer]]:
    """The generators' answers, row by row."""
    each = (_first_turns(store, generator) for generator in dict.fromkeys(generators))
    merged = heapq.merge(*each, key=lambda answer: answer.row)
    for _, answers in groupby(merged, key=lambda answer: answer.row):
        yield list(answers)


def _first_turns(store: Store, generator: str) -> Iterator[Answer]:
    return (answer for answer in store.answers(generator) if answer.turn == 0)


def _texts(store: Store, generator: str) -> Iterator[str]:
    for answer in _first_turns(store, generator):
        for used in _proposals(answer):
            yield _text(store, used.key)


def _text(store: Store, key: bytes) -> str:
    call = store.call(key)
    return "" if call is None else without_reasoning(call.whole.text)


def _proposals(answer: Answer) -> list[UsedCall]:
    """The calls of the last layer that an answer used; none, of a model alone."""
    last = max((used.layer for used in answer.used), default=0)
    return [used for used in answer.used if used.layer == last and last > 0]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
