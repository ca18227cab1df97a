"""Plans say the same whether transformers is installed or not."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cluster.plan.checkpoint import Checkpoint, UnknownCheckpoint, from_config
from cluster.plan.class_defaults import bundled_defaults, with_class_defaults

CONFIGS: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "real_configs.json").read_text("utf-8")
)
FLAT = {"stepfun-ai/Step-3.7-Flash", "stepfun-ai/Step-3.7-Flash-FP8"}
"""Copies without parts, which the class in transformers does not read."""
GEMMA = {"model_type": "gemma3_text", "num_hidden_layers": 12, "hidden_size": 2560}


def shape(found: Checkpoint) -> tuple[object, ...]:
    return (
        set(found.attention),
        found.state_bytes,
        (found.experts, found.experts_used, found.ffn),
        (found.layers, found.hidden, found.vocab, found.heads, found.kv_heads, found.query_width),
        (found.dense_parameters, found.expert_parameters),
        (found.quantization, found.kv_dtype),
    )


@pytest.mark.parametrize("name", sorted(set(CONFIGS) - FLAT))
def test_what_transformers_fills_in_changes_no_shape(name: str) -> None:
    auto = pytest.importorskip("transformers.models.auto.configuration_auto")
    config = CONFIGS[name]["config"]
    if config["model_type"] not in auto.CONFIG_MAPPING:
        pytest.skip("transformers has no class for it")
    keys = {key: value for key, value in config.items() if key != "model_type"}
    filled = auto.CONFIG_MAPPING[config["model_type"]](**json.loads(json.dumps(keys))).to_dict()
    assert shape(from_config(filled, 1 << 30, 0)) == shape(from_config(config, 1 << 30, 0))


def test_the_table_is_that_of_the_installed_transformers() -> None:
    pytest.importorskip("transformers")
    from docs.class_defaults import table

    installed = table()
    ours = bundled_defaults()
    common = installed.keys() & ours.keys()
    assert {kind: ours[kind] for kind in common} == {kind: installed[kind] for kind in common}


def test_a_part_of_a_config_takes_what_its_class_says() -> None:
    # Hub files of Gemma 3 leave out the vocabulary, the heads and their size.
    found = from_config({"model_type": "gemma3", "text_config": GEMMA}, 1 << 30, 0)
    assert (found.vocab, found.heads, found.kv_heads, found.ffn) == (262_208, 8, 4, 9216)
    assert [(kind.layers, kind.kv_width, kind.window_tokens) for kind in found.attention] == [
        (10, 2 * 4 * 256, 4096),
        (2, 2 * 4 * 256, 0),
    ]


def test_a_whole_file_that_leaves_out_a_size_is_refused() -> None:
    # transformers leaves a size out of a part of a file only; here it was lost.
    with pytest.raises(UnknownCheckpoint, match="'num_attention_heads'"):
        from_config(GEMMA, 1 << 30, 0)


def test_null_overrules_the_class() -> None:
    mistral = {
        "model_type": "mistral",
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 8,
        "intermediate_size": 64,
        "vocab_size": 100,
    }
    (all_tokens,) = from_config(mistral | {"sliding_window": None}, 10_000, 0).attention
    (window,) = from_config(mistral, 10_000, 0).attention
    assert (all_tokens.window_tokens, window.window_tokens) == (0, 4096)


@pytest.fixture
def transformers_knows(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretends a transformers that knows a family: transformers_knows("new", a class)."""

    def pretend(family: str, cls: object) -> None:
        auto = ModuleType("transformers.models.auto.configuration_auto")
        auto.CONFIG_MAPPING = {family: cls}  # type: ignore[attr-defined]
        for name in ("transformers", "transformers.models", "transformers.models.auto"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.setitem(sys.modules, auto.__name__, auto)

    return pretend


def test_a_family_that_is_not_in_the_table_is_asked_of_transformers(transformers_knows: Any) -> None:
    class Config:
        def __init__(self, **values: Any) -> None:
            self.values = values

        def to_dict(self) -> dict[str, Any]:
            return self.values | {"num_key_value_heads": 2}

    transformers_knows("new", Config)
    keys, defaults = with_class_defaults({"model_type": "new", "head_dim": 8}, "new")
    assert (keys, defaults["num_key_value_heads"]) == ({"model_type": "new", "head_dim": 8}, 2)


def test_a_class_that_raises_leaves_the_keys_of_the_file(transformers_knows: Any) -> None:
    def refuse(**values: Any) -> None:
        raise RuntimeError(values)

    transformers_knows("new", refuse)
    assert with_class_defaults({"model_type": "new"}, "new") == ({"model_type": "new"}, {})
