"""The state that linear attention, Mamba and short convolutions keep for a sequence, in bytes. Pure.

The shapes follow vLLM (vllm/model_executor/layers/mamba/mamba_utils.py: MambaStateShapeCalculator). A
state does not grow with the sequence. It has the latest inputs of a convolution, in the number type of
the model, and a matrix for each head, often in 32 bits.
"""

from cluster.plan.config_keys import BadConfig, Keys, bad

MODEL_VALUE = 2
"""Bytes of a value in the number type of the model."""
NUMBER_TYPES = {"float32": 4, "float16": 2, "bfloat16": 2, "auto": MODEL_VALUE}
"""Bytes of the number types that a configuration may ask for."""


def state_bytes(keys: Keys, hidden: int) -> int:
    """Bytes of the state of one layer with linear attention or Mamba, for one sequence.

    Raises:
        BadConfig: the size of the state cannot be told.
    """
    linear = keys.part("linear_attn_config")
    if linear is not None:  # Kimi delta attention, as configurations of checkpoints have it
        heads, size = linear.number("num_heads"), linear.number("head_dim")
        return _delta(heads, size, heads, size, linear.number("short_conv_kernel_size"), 4)
    if keys.has("linear_num_heads"):  # the same, as transformers writes it
        heads, size = keys.number("linear_num_heads"), keys.number("linear_head_dim")
        return _delta(heads, size, heads, size, keys.number("linear_conv_kernel_dim"), 4)
    if keys.has("linear_num_value_heads"):  # gated delta net: Qwen3-Next, Qwen3.5
        return _delta(
            keys.number("linear_num_key_heads"),
            keys.number("linear_key_head_dim"),
            keys.number("linear_num_value_heads"),
            keys.number("linear_value_head_dim"),
            keys.number("linear_conv_kernel_dim"),
            _matrix_value(keys),
        )
    heads = keys.number_or(0, "mamba_num_heads", "mamba_n_heads", "n_mamba_heads")
    if heads:
        return _mamba2(keys, hidden, heads)
    if keys.has("mamba_d_state", "state_size", "ssm_state_size"):
        return _mamba1(keys, hidden)
    if keys.has("attn_type_list") or keys.has(
        "linear_attn_alpha_factor", "layernorm_linear_attention_alpha"
    ):
        heads = keys.number("num_attention_heads")  # MiniMax's lightning attention
        size = keys.number_or(hidden // heads, "head_dim")
        return heads * size * size * _matrix_value(keys)
    raise BadConfig("it has layers with a state, and no key that tells how large their state is")


def conv_bytes(keys: Keys, hidden: int) -> int:
    """Bytes of the state of one layer with a short convolution (LFM2), for one sequence.

    Raises:
        BadConfig: the size of the state cannot be told.
    """
    return hidden * (keys.number("conv_L_cache") - 1) * MODEL_VALUE


def _delta(key_heads: int, key: int, heads: int, size: int, kernel: int, matrix: int) -> int:
    """A layer whose state is a matrix of `key` times `size` for each head."""
    convolution = (2 * key_heads * key + heads * size) * (kernel - 1) * MODEL_VALUE
    return convolution + heads * size * key * matrix


def _mamba2(keys: Keys, hidden: int, heads: int) -> int:
    state = keys.number("ssm_state_size", "mamba_d_state")
    kernel = keys.number("conv_kernel", "mamba_d_conv")
    groups = keys.number("n_groups", "mamba_n_groups", "mamba_ngroups")
    name, size = keys.find("mamba_head_dim", "mamba_d_head", "mamba_headdim")
    if size in (None, "auto"):
        inner = keys.number_or(0, "mamba_d_ssm")
        inner = inner or keys.number("mamba_expand", "expand") * hidden
        size = inner // heads
    size = Keys({name: size}).number(name)
    inner = heads * size
    convolution = (inner + 2 * groups * state) * (kernel - 1) * MODEL_VALUE
    return convolution + inner * state * _matrix_value(keys)


def _mamba1(keys: Keys, hidden: int) -> int:
    inner = keys.number_or(0, "intermediate_size") if keys.has("state_size") else 0
    inner = inner or keys.number("mamba_expand", "expand") * hidden
    state, kernel = (
        keys.number("mamba_d_state", "state_size"),
        keys.number("mamba_d_conv", "conv_kernel"),
    )
    return inner * (kernel - 1) * MODEL_VALUE + inner * state * _matrix_value(keys)


def _matrix_value(keys: Keys) -> int:
    """Bytes of a value of a state's matrices: those of the type that the configuration asks for.

    vLLM reads the first key for Qwen3.5 and the second for Nemotron-H, whose class has a default. The
    other families keep their matrices in the number type of the model
    (vllm/model_executor/models/config.py: NemotronHForCausalLMConfig,
    Qwen3_5ForConditionalGenerationConfig).
    """
    names = ("mamba_ssm_dtype", "mamba_ssm_cache_dtype")
    word = keys.text(*names)
    if not word:
        return MODEL_VALUE
    if word not in NUMBER_TYPES:
        raise bad(keys.find(*names)[0], word, f"one of {', '.join(NUMBER_TYPES)}")
    return NUMBER_TYPES[word]
