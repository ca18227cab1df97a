"""Measures how different the proposals for an aggregator are.

The similarity of two proposals is the cosine of their TF-IDF vectors of character 4-grams, 0 to 1. The
vectors are of characters instead of words, because rows may be in any language, even in one without
spaces. The TF-IDF weights are fitted once. So the similarity of two proposals does not depend on the
other proposals to the row, and variants of one mixture can be compared. Only the wording is compared:
two proposals with the same meaning in different words count as different.
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

from actors.text.thinking import without_reasoning
from jobs.records import Answer, UsedCall
from jobs.store import Store

GRAM = 4
"""Characters of a gram."""
FEATURES = 2**20
"""Length of a vector. Grams are hashed, and with fewer features more of them would collide."""
FIT_TEXTS = 2000
"""The TF-IDF weights are fitted to so many texts at most, which limits the memory to about 20 MB."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Diversity:
    """How different the proposals of one mixture are."""

    generator: str
    """Name of the mixture."""
    rows: int
    """Number of rows for which the mixture has proposals."""
    proposals: float | None
    """Mean number of proposals to one of these rows; None without rows."""
    vendi: float | None
    """Mean Vendi Score (Friedman & Dieng, 2023) over these rows; None without rows.

    The score of a row is the effective number of different proposals: 1 if all proposals are equal, up
    to the number of proposals if no two are alike.
    """


@dataclass(frozen=True, slots=True)
class Similarity:
    """How similar the proposals of two models to the same row are."""

    model: str
    other: str
    """The other model; equal to `model` for two samples of one model."""
    pairs: int
    """Number of pairs of proposals; both proposals of a pair are to one row, from one mixture."""
    value: float
    """Mean similarity of the pairs, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Diversities:
    """The diversity of several mixtures, and the similarity of their proposers."""

    mixtures: tuple[Diversity, ...]
    similarities: tuple[Similarity, ...]

    def vendi(self, generator: str) -> float | None:
        """The mean Vendi Score of a mixture; None if it was not measured or has no proposals."""
        return next((each.vendi for each in self.mixtures if each.generator == generator), None)

    def nearest(self, model: str, others: Collection[str]) -> tuple[str, float] | None:
        """Find the model among `others` whose proposals are most similar to the proposals of `model`.

        Returns:
            The other model and the similarity, or None if no similarity to any of `others` is known.
        """
        found = [
            (other, each.value)
            for each in self.similarities
            for one, other in ((each.model, each.other), (each.other, each.model))
            if one == model and other in others
        ]
        return max(found, key=lambda pair: pair[1], default=None)


def diversities(store: Store, generators: Sequence[str]) -> Diversities:
    """Measure how different the proposals of mixtures are.

    Only proposals to first turns count, and only proposals of the last layer, which the aggregator
    reads. The weights are fitted to the first FIT_TEXTS proposals of the first generator. Rows are
    streamed from the store.

    Args:
        store: The store of the run.
        generators: Names of the mixtures, at least one.
    """
    kernel = _Kernel(islice(_texts(store, generators[0]), FIT_TEXTS))
    sums = _Sums()
    for answers in _rows(store, generators):
        mixtures = {answer.generator: _proposals(answer) for answer in answers}
        keys = dict.fromkeys(used.key for some in mixtures.values() for used in some)
        if keys:
            sums.add(mixtures, list(keys), kernel.similarity([_text(store, key) for key in keys]))
    return sums.result(generators)


class _Sums:
    """Collects the scores and the similarities of all rows."""

    def __init__(self) -> None:
        self._vendi: dict[str, list[float]] = defaultdict(list)
        self._counts: dict[str, list[int]] = defaultdict(list)
        self._similar: dict[tuple[str, str], list[float]] = defaultdict(list)

    def add(
        self, mixtures: Mapping[str, Sequence[UsedCall]], keys: Sequence[bytes], similarity: Floats
    ) -> None:
        """Add one row.

        Args:
            mixtures: The proposals to the row, by mixture.
            keys: Keys of all these proposals, each once.
            similarity: Similarity of every two proposals, in the order of the keys: shape (n, n).
        """
        position = {key: n for n, key in enumerate(keys)}
        for generator, some in mixtures.items():
            if some:
                at = [position[used.key] for used in some]
                self._vendi[generator].append(vendi_score(similarity[np.ix_(at, at)]))
                self._counts[generator].append(len(some))
        for one, other in _side_by_side(mixtures.values()):
            first, second = sorted((one.model, other.model))
            value = float(similarity[position[one.key], position[other.key]])
            self._similar[first, second].append(value)

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
    """Every two proposals of one mixture. A pair that is in several mixtures is returned once."""
    pairs = ((one, other) for some in mixtures for one, other in combinations(some, 2))
    return {frozenset((one.key, other.key)): (one, other) for one, other in pairs}.values()


def vendi_score(similarity: Floats) -> float:
    """The Vendi Score (Friedman & Dieng, 2023): the effective number of different items, from 1 to n.

    The score is the exponential of the entropy of the eigenvalues of K/n.

    Args:
        similarity: K, the similarity of every two of n items; shape (n, n), positive semidefinite, with
            ones on the diagonal.
    """
    shares = np.linalg.eigvalsh(similarity / len(similarity))
    shares = shares[shares > 0]  # rounding makes zeros slightly negative
    return float(np.exp(-(shares * np.log(shares)).sum()))


class _Kernel:
    """Measures the similarity of texts with weights that are fitted once."""

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
        """The similarity of every two texts: shape (n, n). An empty text is similar only to itself."""
        vectors = self._weights.transform(self._hashing.transform(texts))
        similarity: Floats = (vectors @ vectors.T).toarray()
        np.fill_diagonal(similarity, 1)
        return similarity


def _rows(store: Store, generators: Sequence[str]) -> Iterator[list[Answer]]:
    """Yield the generators' answers to the first turn of each row, one list per row."""
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
    """The calls of the last layer that an answer used; an empty list for a model alone."""
    last = max((used.layer for used in answer.used), default=0)
    return [used for used in answer.used if used.layer == last and last > 0]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
