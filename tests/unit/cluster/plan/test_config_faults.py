"""Whatever a config.json holds, the answer is a shape or a refusal that names the key."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.plan.checkpoint import UnknownCheckpoint, from_config, from_folder, from_metadata
from configs.errors import UserError

CONFIGS: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "real_configs.json").read_text("utf-8")
)
LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
}
STRANGE: list[Any] = [
    None,
    "",
    "twelve",
    -1,
    0,
    10**30,
    2**31,
    1.5,
    float("nan"),
    True,
    [],
    [1],
    [[["deep"]]],
    [None] * 3,
    {},
    {"a": {"b": []}},
]
SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


def write(folder: Path, config: str, size: int = 64) -> None:
    (folder / "config.json").write_text(config)
    header = json.dumps({"a": {"dtype": "I8", "shape": [size], "data_offsets": [0, size]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))


@pytest.mark.parametrize("key", SIZES)
@pytest.mark.parametrize("value", STRANGE, ids=repr)
def test_a_size_that_is_none_is_refused_by_its_name(key: str, value: Any) -> None:
    with pytest.raises(UnknownCheckpoint, match=f"'{key}'"):
        from_config(LLAMA | {key: value}, 10_000, 0)


@pytest.mark.parametrize("key", SIZES)
def test_a_size_that_is_missing_is_refused_by_its_name(key: str) -> None:
    with pytest.raises(UnknownCheckpoint, match=f"'{key}'"):
        from_config({k: v for k, v in LLAMA.items() if k != key}, 10_000, 0)


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"num_key_value_heads": 0}, "num_key_value_heads"),
        ({"head_dim": -8}, "head_dim"),
        ({"layer_types": ["full_attention", "telepathy"]}, "layer_types.*telepathy"),
        ({"layer_types": ["full_attention"]}, "layer_types.*1 items for 2 layers"),
        ({"layer_types": "full_attention"}, "layer_types"),
        ({"hybrid_layer_pattern": [0, 7]}, "hybrid_layer_pattern.*7"),
        ({"layer_types": ["linear_attention"] * 2}, "no key that tells how large their state is"),
        ({"num_experts": 8}, "num_experts_per_tok"),
        ({"num_experts": 8, "num_experts_per_tok": 9}, "num_experts_per_tok.*9"),
        ({"num_experts": "8"}, "num_experts"),
        ({"num_attention_heads": 65}, "num_attention_heads"),
        ({"sliding_window": "wide", "model_type": "mistral"}, "sliding_window"),
        ({"use_sliding_window": "yes", "sliding_window": 4}, "use_sliding_window"),
        ({"model_type": 7}, "model_type"),
        ({"text_config": ["no object"]}, "text_config"),
        ({"quantization_config": {"bits": 4}}, "quant_method"),
        ({"quantization_config": "awq"}, "quantization_config"),
        ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "W2A2"}}, "W2A2"),
        ({"block_configs": [{}, {}]}, "block_configs"),
        (
            {"kv_lora_rank": 512, "model_type": "deepseek_v3", "qk_rope_head_dim": None},
            "qk_rope_head_dim",
        ),
        ({"per_layer_config": {"first": {}}}, "per_layer_config.*first"),
        ({"max_position_embeddings": "long"}, "max_position_embeddings"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(keys: dict[str, Any], named: str) -> None:
    with pytest.raises(UnknownCheckpoint, match=named):
        from_config(LLAMA | keys, 10_000, 0)


@pytest.mark.parametrize("text", ["", "[]", "7", "null", '"text"', "{", "[" * 100_000, '{"a": ' * 5000])
def test_a_file_that_is_no_object_is_refused(text: str, tmp_path: Path) -> None:
    write(tmp_path, text)
    with pytest.raises(UnknownCheckpoint, match="cannot understand the model in"):
        from_folder(tmp_path)


def test_weights_without_bytes_are_refused() -> None:
    with pytest.raises(UnknownCheckpoint, match="no bytes"):
        from_metadata(LLAMA, {})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def spoiled(draw: st.DrawFn) -> dict[str, Any]:
    """A real config with some of its keys changed, doubled into lists, or gone."""
    entry = CONFIGS[draw(st.sampled_from(sorted(CONFIGS)))]
    config: dict[str, Any] = json.loads(json.dumps(entry["config"]))
    part = config["text_config"] if "text_config" in config and draw(st.booleans()) else config
    for key in draw(st.lists(st.sampled_from(sorted(part)), min_size=1, max_size=3, unique=True)):
        if draw(st.booleans()):
            part[key] = draw(st.sampled_from(STRANGE) | json_values)
        else:
            del part[key]
    return config


@settings(max_examples=400, deadline=None)
@given(spoiled())
def test_spoiled_configs_are_understood_or_refused(config: dict[str, Any]) -> None:
    try:
        found = from_config(config, 60 << 30, 0)
    except UserError:
        return
    assert found.layers > 0
    assert 1 <= found.experts_used <= found.experts
    assert found.state_bytes >= 0
    assert found.bits > 0
    for kind in found.attention:
        assert kind.layers > 0
        assert kind.token_bytes(2) > 0
