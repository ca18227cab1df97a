"""What becomes of the parameters of a request that are no fields of ChatRequest.

Every parameter of OpenAI's chat completions is here or in ChatRequest, and so are those that vLLM,
llama.cpp, Ollama, SGLang, LM Studio, OpenRouter, LiteLLM, Open WebUI, Mistral, DeepSeek, Anthropic's
compatible endpoint and others take, as of November 2026. `aliases.py` has read other names and forms.
"""

import json
from difflib import get_close_matches
from typing import Any

from configs.errors import BadRequest

IGNORED = frozenset(
    {
        "metadata",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
"""OpenAI's parameters that say who asks and what for, or how to route, store or speed up a request."""
TOOL_LISTS = frozenset({"functions", "tools"})
"""Parameters that list tools which a model may call (`tools.py`). Where no model can call one, they are
left out: Open WebUI sends its tools with every question, so a refusal would make all questions from
Open WebUI fail."""
TOOL_SWITCHES = ("tool_choice", "function_call", "parallel_tool_calls")
"""Parameters that say how tools are called."""
LONGEST_PARAM = 100
"""Most characters of `param` in an error, because a client may send a parameter name of any length."""
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1, 0),
    "chat_template": ("",),
    "custom_logit_processor": (),
    "data_sources": ([],),
    "deferred": (False,),
    "documents": ([],),
    "echo": (False,),
    "enable_code_interpreter": (False,),
    "enable_search": (False,),
    "guided_json_object": (False,),
    "images": ([],),
    "instruction_template_str": ("",),
    "logits_processors": ([],),
    "lora": ([],),
    "lora_path": ("",),
    "mcp_servers": ([],),
    "modalities": (["text"],),
    "moderation": (),
    "n": (1,),
    "n_cmpl": (1,),
    "n_probs": (0,),
    "negative_prompt": ("",),
    "num_beams": (1,),
    "num_return_sequences": (1,),
    "plugins": ([],),
    "prompt_logprobs": (0,),
    "raw": (False,),
    "response_format": ({"type": "text"},),
    "safe_prompt": (False,),
    "search_parameters": ({"mode": "off"},),
    "steering_vectors": ([],),
    "stop_regex": ("", []),
    "structural_tag": (),
    "system": ("", []),
    "template": ("",),
    "truncate_prompt_tokens": (-1,),
    "use_beam_search": (False,),
    "verbosity": ("medium",),
    "web_search": (False,),
    "web_search_options": (),
}
"""Parameters of features that SlimMoA does not have, with the values that do not need the feature.
Without the feature, the answer would be another one than was asked for."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


HARMLESS: dict[str, frozenset[str]] = {
    "how a server works": _names(
        """
        add_special_tokens backend_sampling bootstrap_host bootstrap_port bootstrap_room cache_control
        cache_prompt cache_salt chat_format compilation_config context_length
        context_length_exceeded_behavior context_management custom_params data_parallel_rank debug
        disable_tool_validation draft_model ec_transfer_params extra_key f16_kv flash_attn grammar_lazy
        grammar_triggers guided_decoding_backend guided_whitespace_pattern id_slot incremental_output
        inference_geo keep_alive kv_transfer_params logits_all low_vram main_gpu media_io_kwargs
        mm_payload mm_processor_kwargs model_item n_cache_reuse n_discard n_indent n_keep num_batch
        num_ctx num_gpu num_gqa num_keep num_thread numa nvext parse_tool_calls perf_metrics_in_response
        preserved_tokens priority prompt_cache_isolation_key prompt_cache_max_len prompt_truncate_len
        queue_threshold reasoning_in_content repetition_detection request_id rid rope_frequency_base
        rope_frequency_scale routed_experts_prompt_start routed_dp_rank samplers session_id
        session_params shift slot_id speculation speed stream_interval stream_reasoning
        t_max_predict_ms t_max_prompt_ms thinking_forced_open transforms truncate truncation
        truncation_side ttl use_mlock use_mmap vllm_xargs vocab_only watermark watermarking
        """
    ),
    "who asks, and how proxies and applications route": _names(
        """
        additional_drop_params allowed_openai_params anthropic_beta anthropic_version api_base api_key
        api_type api_version background_tasks base_url betas cache caching chat_id compliance container
        context_window_fallback_dict conversation_id cooldown_time custom_llm_provider deployment_id
        drop_params extra_body extra_headers extra_query fallback_models fallbacks features files
        filter_ids folder_id force_timeout guardrails headers hf_model_name id image_config
        input_cost_per_token logger_fn max_retries message_id mock_response model_info models
        num_retries no-log options organization output_cost_per_token parent_id params preset
        provider providerOptions provider_options region_name request_timeout route rpm
        skill_ids ssl_verify stream_timeout tags task terminal_id timeout tool_ids tool_servers tpm
        trace trace_id usage user_id user_security_context variables verbose
        """
    ),
    "what an answer shows beside its text": _names(
        """
        citation_options citations clear_thinking details decoder_input_details echo_prompt
        include_server_side_tool_invocations logprob_token_ids
        mask_sensitive_info parse_reasoning post_sampling_probs prompt_mode raw_output
        reasoning_format reasoning_split response_fields result_format return_cached_tokens_details
        return_citations return_full_text return_hidden_states return_images return_meta_info
        return_mm_kwargs return_prompt_text return_progress return_prompt_token_ids
        return_related_questions return_routed_experts return_token_ids return_token_offsets
        return_tokens return_tokens_as_token_ids return_weight_versions separate_reasoning
        summary skip_special_tokens spaces_between_special_tokens timings_per_token tool_stream
        top_n_tokens no_stop_trim
        """
    ),
    "samplers that no engine here has": _names(
        """
        adaptive_decay adaptive_target dynamic_temperature dynatemp_high dynatemp_low early_stopping
        encoder_repetition_penalty epsilon_cutoff eta_cutoff guidance_scale length_penalty mirostat_mode
        no_repeat_ngram_size penalize_newline penalize_nl penalty_alpha presence_context_penalty
        repetition_penalty_range sampler_order sampler_priority sampler_seed smoothing_curve
        smoothing_factor temperature_last tfs tfs_z top_a
        """
    ),
}
"""Parameters that are left out, and that `moa.ignored` names, by what they are about."""
HARMLESS_NAMES = frozenset().union(*HARMLESS.values())
PREFIXES = ("_", "litellm_", "speculative.", "x_", "x-")
"""How names of parameters begin that are meant for a proxy, or for speculation."""


def is_ignored(name: str) -> bool:
    """Whether a parameter is left out and named in `moa.ignored`."""
    return name in HARMLESS_NAMES or (len(name) <= LONGEST_PARAM and name.startswith(PREFIXES))


def require_harmless(name: str, value: Any, sent: str) -> None:
    """Return if the value of an UNSUPPORTED parameter asks for what happens anyway.

    Args:
        name: our name of the parameter.
        value: its value.
        sent: how the client has named the parameter.

    Raises:
        BadRequest: it asks for a feature that SlimMoA does not have.
    """
    # Compared as JSON, where true is not 1.
    if json.dumps(value) not in map(json.dumps, UNSUPPORTED[name]):
        raise unsupported(sent, UNSUPPORTED[name])


def unsupported(name: str, harmless: tuple[Any, ...], why: str = "") -> BadRequest:
    """The refusal of a parameter.

    Args:
        name: the parameter, as the client has named it.
        harmless: values that would be accepted.
        why: the reason, if it is not the same for all models.
    """
    ways = ["leave it out", *(f"send {json.dumps(value)}" for value in harmless)]
    return refusal(name, f"is not supported here; {' or '.join(ways)}{why}")


def unknown(name: str, known: frozenset[str]) -> BadRequest:
    """The refusal of a parameter that nobody knows: it may be a typing error for one of `known`."""
    close = get_close_matches(name, sorted(known), 1, 0.8) if len(name) <= LONGEST_PARAM else []
    hint = f"; do you mean {close[0]!r}?" if close else ""
    return refusal(name, f"is not a parameter that this server knows{hint}")


def refusal(name: str, why: str) -> BadRequest:
    """The refusal of a parameter, for any reason."""
    return BadRequest(f"{name!r:.80} {why}", param=name[:LONGEST_PARAM])
