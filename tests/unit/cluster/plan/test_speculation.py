"""What speculation of vLLM takes, and where vLLM cannot speculate."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.plan.checkpoint_facts import Attention, Checkpoint
from cluster.plan.footprint import footprint
from cluster.plan.vllm_extras import CannotSpeculate, cached_layers, with_draft
from configs.schema import VllmModel
from tests.unit.cluster.plan.test_lora import BASE, model

HEAD = Checkpoint(
    weight_bytes=1 << 18,
    layers=1,
    hidden=BASE.hidden,
    ffn=128,
    vocab=BASE.vocab,
    query_width=BASE.hidden,
    attention=(Attention(1, 32),),
    heads=4,
    kv_heads=1,
)
DRAFT = [{"path": str(Path("/draft"))}]


def speculating(method: str, **settings: Any) -> VllmModel:
    draft = {"draft": DRAFT} if method in ("draft", "eagle", "eagle3") else {}
    return model(speculation={"method": method, **draft}, **settings)


@pytest.mark.parametrize("method", ["draft", "eagle", "eagle3"])
def test_weights_and_cache_of_what_guesses_are_planned(method: str) -> None:
    plain = footprint(model(), BASE, "cpu")
    settings = speculating(method)
    guessing = footprint(settings, with_draft("m", settings, BASE, HEAD), "cpu")
    assert guessing.weights == plain.weights + HEAD.weight_bytes
    assert guessing.kv == plain.kv * 3 // 2  # three layers in place of two
    on_gpu = footprint(settings, replace(BASE, draft=HEAD), "gpu")
    assert on_gpu.loading > footprint(model(), BASE, "gpu").loading


def test_layers_of_the_checkpoint_that_predict_have_a_cache_too() -> None:
    base = replace(BASE, next_token_layers=1)
    settings = speculating("mtp")
    assert cached_layers(settings, base) == (*base.attention, Attention(1, 32))
    plain = footprint(model(), base, "cpu")
    guessing = footprint(settings, with_draft("m", settings, base, None), "cpu")
    assert (guessing.weights, guessing.kv) == (plain.weights, plain.kv * 3 // 2)


def test_n_grams_take_no_weights_but_more_logits() -> None:
    plain, settings = footprint(model(), BASE, "cpu"), model(speculation="ngram")
    guessing = footprint(settings, with_draft("m", settings, BASE, None), "cpu")
    assert (guessing.weights, guessing.kv) == (plain.weights, plain.kv)
    assert guessing.activations > plain.activations


@pytest.mark.parametrize(
    ("method", "draft", "why"),
    [
        ("mtp", None, "names no layers"),
        ("draft", replace(HEAD, vocab=99), "vocabulary has 99 tokens"),
        ("draft", replace(HEAD, most_tokens=2048), "holds 2048 tokens, and context_tokens is 4096"),
        ("eagle", replace(HEAD, hidden=32), "has 32 values"),
    ],
)
def test_what_does_not_suit_is_refused_by_reason(
    method: str, draft: Checkpoint | None, why: str
) -> None:
    with pytest.raises(CannotSpeculate, match=why):
        with_draft("m", speculating(method), BASE, draft)
