"""Parameters that other servers take: honoured, ignored and named, or refused by name.

The lists are from the servers' own sources and pages: ChatCompletionRequest of vLLM 0.33, llama.cpp's
tools/server/server-task.cpp, Ollama's docs/openai.md and api.md, SGLang's protocol.py, LM Studio's and
OpenRouter's pages, LiteLLM's constants.py, Open WebUI's middleware, Mistral's, DeepSeek's and
Anthropic's references.
"""

import json
from typing import Any

import httpx
import pytest

from configs.errors import BadRequest
from configs.extra_parameters import CONSTRAINTS, KNOWN
from configs.schema import Sampling
from serve_app.http.aliases import READERS, RENAMED
from serve_app.http.asked_sampling import change_sampling
from serve_app.http.parameters import HARMLESS_NAMES, IGNORED, TOOL_LISTS, UNSUPPORTED
from serve_app.http.request import ChatRequest, parse
from tests.unit.serve_app.conftest import CHAT, MIXTURE

VLLM = """
messages model frequency_penalty logit_bias logprobs top_logprobs max_tokens max_completion_tokens n
presence_penalty response_format seed stop stream stream_options temperature top_p tools tool_choice
reasoning_effort thinking_token_budget include_reasoning parallel_tool_calls user use_beam_search top_k
min_p repetition_penalty watermarking length_penalty stop_token_ids include_stop_str_in_output
ignore_eos min_tokens skip_special_tokens spaces_between_special_tokens truncate_prompt_tokens
truncation_side prompt_logprobs logprob_token_ids allowed_token_ids bad_words echo add_generation_prompt
continue_final_message add_special_tokens documents chat_template chat_template_kwargs media_io_kwargs
mm_processor_kwargs structured_outputs priority request_id session_id return_tokens_as_token_ids
return_token_ids return_weight_versions routed_experts_prompt_start return_token_offsets
return_prompt_text mm_payload return_mm_kwargs cache_salt kv_transfer_params ec_transfer_params
vllm_xargs repetition_detection stream_interval guided_json guided_regex guided_choice guided_grammar
guided_decoding_backend guided_whitespace_pattern best_of early_stopping
"""
LLAMACPP = """
timings_per_token cache_prompt return_tokens return_progress n_predict max_completion_tokens n_indent
n_keep n_discard n_cmpl n n_cache_reuse t_max_predict_ms response_fields top_k top_p min_p top_n_sigma
xtc_probability xtc_threshold typical_p temperature dynatemp_range dynatemp_exponent repeat_last_n
repeat_penalty frequency_penalty presence_penalty dry_multiplier dry_base dry_allowed_length
dry_penalty_last_n mirostat mirostat_tau mirostat_eta adaptive_target adaptive_decay seed n_probs
min_keep backend_sampling post_sampling_probs speculative.n_min speculative.n_max speculative.p_min
lora dry_sequence_breakers json_schema grammar grammar_lazy chat_format reasoning_format
thinking_forced_open parse_tool_calls preserved_tokens grammar_triggers reasoning_budget_tokens
thinking_budget_tokens logit_bias ignore_eos stop samplers id_slot
"""
OLLAMA = """
format options keep_alive think num_ctx num_predict num_keep num_batch num_gpu main_gpu use_mmap
num_thread repeat_last_n repeat_penalty tfs_z typical_p penalize_newline numa reasoning raw template
system images truncate shift
"""
SGLANG = """
regex ebnf min_tokens no_stop_trim ignore_eos skip_special_tokens lora_path session_params
separate_reasoning stream_reasoning return_hidden_states rid bootstrap_host bootstrap_port
bootstrap_room data_parallel_rank extra_key custom_logit_processor custom_params stop_regex
return_cached_tokens_details return_routed_experts
"""
OTHERS = """
ttl draft_model context_length transforms models route provider plugins top_a usage preset trace
drop_params additional_drop_params allowed_openai_params num_retries max_retries timeout fallbacks
api_base api_key base_url api_version custom_llm_provider extra_headers extra_body guardrails
mock_response litellm_metadata litellm_call_id litellm_session_id caching tags chat_id session_id id
background_tasks features variables tool_ids tool_servers filter_ids files params model_item
random_seed safe_prompt prompt_mode thinking user_id stop_sequences anthropic_version mcp_servers
enable_thinking thinking_budget enable_search context_length_exceeded_behavior prompt_truncate_len
search_parameters deferred reasoning_split do_sample max_new_tokens request_id tool_stream nvext
citation_options disable_reasoning clear_thinking providerOptions
"""
NAMES = sorted({*VLLM.split(), *LLAMACPP.split(), *OLLAMA.split(), *SGLANG.split(), *OTHERS.split()})
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
BASE = Sampling(temperature=0.3, max_tokens=77)


def request(**fields: Any) -> ChatRequest:
    return parse(json.dumps(MIXTURE | fields).encode())


def complaint(**fields: Any) -> str:
    """Why the request is refused; "" if it is not."""
    try:
        request(**fields)
    except BadRequest as error:
        return error.message
    return ""


def sampled(engine: str | None = None, **fields: Any) -> Sampling:
    return change_sampling(BASE, request(**fields), engine)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_of_the_field_is_known(name: str) -> None:
    inner = "num_ctx" if name in ("options", "extra_body") else "something"
    assert "not a parameter" not in complaint(**{name: {inner: "else"}})


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("messages", "model")])
def test_null_is_the_same_as_no_parameter(name: str) -> None:
    assert request(**{name: None}) == request()


@pytest.mark.parametrize("name", sorted(HARMLESS_NAMES))
def test_a_harmless_parameter_is_named_and_changes_nothing(name: str) -> None:
    found = request(**{name: "some value"})
    assert found.ignored == (name,)
    assert change_sampling(BASE, found, "scripted") == BASE


def test_no_parameter_is_treated_in_two_ways() -> None:
    kinds = (
        frozenset(ChatRequest.model_fields),
        IGNORED,
        TOOL_LISTS,
        HARMLESS_NAMES - {"options", "extra_body"},
        frozenset(RENAMED),
        frozenset(READERS) - {"response_format"},
        frozenset(UNSUPPORTED),
    )
    assert sum(map(len, kinds)) == len(frozenset().union(*kinds))


@pytest.mark.parametrize(
    "name", ["litellm_anything", "x_custom", "x-header", "_private", "speculative.n"]
)
def test_parameters_for_a_proxy_are_ignored_by_their_prefix(name: str) -> None:
    assert request(**{name: 1}).ignored == (name,)


@pytest.mark.parametrize(
    ("fields", "changed"),
    [
        ({"top_k": 20}, {"top_k": 20}),
        ({"top_k": 0}, {"top_k": 0}),
        ({"top_k": -1}, {"top_k": -1}),
        ({"min_p": 0.05}, {"min_p": 0.05}),
        ({"repetition_penalty": 1.1}, {"repetition_penalty": 1.1}),
        ({"repeat_penalty": 1.1}, {"repetition_penalty": 1.1}),
        ({"repeat_penalty": 1.1, "repetition_penalty": 1.2}, {"repetition_penalty": 1.2}),
        ({"n_predict": 9}, {"max_tokens": 9}),
        ({"num_predict": 9}, {"max_tokens": 9}),
        ({"max_new_tokens": 9}, {"max_tokens": 9}),
        ({"max_output_tokens": 9}, {"max_tokens": 9}),
        ({"max_tokens": -1}, {}),
        ({"n_predict": -1}, {}),
        ({"num_predict": -2}, {}),
        ({"random_seed": 5}, {"seed": 5}),
        ({"seed": -1}, {}),
        ({"stop_sequences": ["a"]}, {"stop": ("a",)}),
        ({"do_sample": False}, {"temperature": 0.0}),
        ({"do_sample": False, "temperature": 0.5}, {"temperature": 0.5}),
        ({"do_sample": True}, {}),
        (
            {
                "options": {
                    "temperature": 0.1,
                    "top_k": 3,
                    "num_predict": 4,
                    "num_ctx": 8192,
                    "stop": "x",
                }
            },
            {"temperature": 0.1, "top_k": 3, "max_tokens": 4, "stop": ("x",)},
        ),
        ({"extra_body": {"top_k": 7, "min_p": 0.1}}, {"top_k": 7, "min_p": 0.1}),
        ({"temperature": 0.9, "options": {"temperature": 0.1}}, {"temperature": 0.9}),
        ({"thinking_budget": 30}, {"thinking_tokens": 30}),
        ({"reasoning_budget": -1}, {}),
        ({"reasoning_effort": "default"}, {}),
        ({"think": False}, {"template": {"enable_thinking": False, "thinking": False}}),
        ({"think": True}, {"template": {"enable_thinking": True, "thinking": True}}),
        ({"think": "high"}, {"reasoning_effort": "high"}),
        ({"enable_thinking": False}, {"template": {"enable_thinking": False, "thinking": False}}),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 1024}},
            {"template": {"enable_thinking": True, "thinking": True}, "thinking_tokens": 1024},
        ),
        (
            {"thinking": {"type": "disabled"}},
            {"template": {"enable_thinking": False, "thinking": False}},
        ),
        ({"thinking": {"type": "auto"}}, {}),
        ({"disable_reasoning": True}, {"template": {"enable_thinking": False, "thinking": False}}),
        (
            {"reasoning": {"effort": "low", "max_tokens": 99, "exclude": False}},
            {"reasoning_effort": "low", "thinking_tokens": 99},
        ),
        (
            {"reasoning": {"enabled": False}},
            {"template": {"enable_thinking": False, "thinking": False}},
        ),
        (
            {"enable_thinking": True, "chat_template_kwargs": {"enable_thinking": False}},
            {"template": {"enable_thinking": False, "thinking": True}},
        ),
        ({"top_logprobs": 0}, {}),
    ],
    ids=str,
)
def test_other_names_and_forms_mean_the_same(fields: dict[str, Any], changed: dict[str, Any]) -> None:
    assert sampled(**fields) == BASE.model_copy(update=changed)


@pytest.mark.parametrize(
    ("fields", "structure"),
    [
        ({"response_format": {"type": "json_object"}}, {"json_object": True}),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, {"json_schema": SCHEMA}),
        ({"response_format": {"type": "json", "value": SCHEMA}}, {"json_schema": SCHEMA}),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": SCHEMA},
                }
            },
            {"json_schema": SCHEMA},
        ),
        ({"json_schema": SCHEMA}, {"json_schema": SCHEMA}),
        ({"guided_json": json.dumps(SCHEMA)}, {"json_schema": SCHEMA}),
        ({"structured_outputs": {"json": SCHEMA}}, {"json_schema": SCHEMA}),
        ({"structured_outputs": {"choice": ["a", "b"]}}, {"choice": ["a", "b"]}),
        ({"guided_choice": ["a", "b"]}, {"choice": ["a", "b"]}),
        ({"guided_regex": "a+"}, {"regex": "a+"}),
        ({"regex": "a+"}, {"regex": "a+"}),
        ({"grammar": 'root ::= "a"'}, {"grammar": 'root ::= "a"'}),
        ({"ebnf": 'root ::= "a"'}, {"grammar": 'root ::= "a"'}),
        ({"format": "json"}, {"json_object": True}),
        ({"format": SCHEMA}, {"json_schema": SCHEMA}),
    ],
    ids=str,
)
def test_the_form_of_an_answer_has_many_names(
    fields: dict[str, Any], structure: dict[str, Any]
) -> None:
    assert sampled("vllm", **fields).extra == {"structure": structure}
    with pytest.raises(BadRequest, match="is not supported here; leave it out") as refused:
        sampled("scripted", **fields)
    assert refused.value.param == next(iter(fields))


@pytest.mark.parametrize(("engine", "known"), KNOWN.items())
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("min_tokens", 5),
        ("ignore_eos", True),
        ("typical_p", 0.9),
        ("dry_multiplier", 0.8),
        ("mirostat", 2),
        ("repeat_last_n", -1),
        ("logit_bias", {"50256": -100}),
        ("stop_token_ids", [1, 2]),
        ("bad_words", ["no"]),
        ("allowed_token_ids", [5]),
    ],
)
def test_an_engine_decides_whether_a_parameter_is_honoured_ignored_or_refused(
    engine: str, known: frozenset[str], name: str, value: Any
) -> None:
    asked = request(**{name: value})
    if name in known:
        assert change_sampling(BASE, asked, engine).extra == {name: value}
        assert asked.ignored == ()
    elif name in CONSTRAINTS:
        with pytest.raises(BadRequest, match=f"'{name}' is not supported here; leave it out"):
            change_sampling(BASE, asked, engine)
    else:
        assert change_sampling(BASE, asked, engine) == BASE
        assert asked.ignored == (name,)


@pytest.mark.parametrize(
    "fields",
    [
        {"min_tokens": 0, "ignore_eos": False, "typical_p": 1.0, "mirostat": 0, "dry_multiplier": 0.0},
        {"logit_bias": {}, "stop_token_ids": [], "bad_words": [], "guided_choice": [], "grammar": ""},
        {"response_format": {"type": "text"}, "n": 1, "best_of": 1, "use_beam_search": False},
        {"tool_choice": "auto", "documents": [], "plugins": [], "echo": False, "lora": []},
    ],
    ids=str,
)
def test_values_that_ask_for_nothing_are_not_named(fields: dict[str, Any]) -> None:
    asked = request(**fields)
    assert change_sampling(BASE, asked, "scripted") == BASE
    assert asked.ignored == ()


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"repeat_penalty": 0}, "repeat_penalty", "greater than 0"),
        ({"options": {"top_k": "many"}}, "options.top_k", "valid integer"),
        ({"top_k": 1.5}, "top_k", "valid integer"),
        ({"min_p": 2}, "min_p", "less than or equal to 1"),
        ({"n_predict": 0}, "n_predict", "greater than or equal to 1"),
        ({"n_predict": -7}, "n_predict", "greater than or equal to 1"),
        ({"think": 3}, "think", "true, false or an effort, not 3"),
        ({"think": "a lot"}, "think", "Input should be 'none'"),
        ({"thinking": {"type": "perhaps"}}, "thinking.type", '"enabled" or "disabled"'),
        (
            {"thinking": {"type": "enabled", "budget_tokens": -5}},
            "thinking.budget_tokens",
            "greater than",
        ),
        ({"mirostat": 3}, "mirostat", "less than or equal to 2"),
        ({"logit_bias": {"hello": 1}}, "logit_bias", "token ids"),
        ({"guided_choice": ["a", 1]}, "guided_choice.choice.1", "valid string"),
        ({"structured_outputs": {}}, "structured_outputs", "json, regex, choice or grammar"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs", "one form"),
        (
            {"response_format": {"type": "yaml"}},
            "response_format",
            "whose type is text, json_obj",
        ),
        ({"response_format": "json_object"}, "response_format", "send an object whose type is"),
        ({"response_format": {}}, "response_format", "send an object whose type is"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": None}}},
            "response_format.json_schema.schema",
            "response_format.json_schema.schema is missing: the JSON schema of the answer",
        ),
        ({"min_tokens": 9, "max_tokens": 5}, "min_tokens", "more than max_tokens (5)"),
        ({"prompt_logprobs": 1}, "prompt_logprobs", "leave it out or send 0"),
        ({"best_of": 3}, "best_of", "send 1"),
        ({"echo": True}, "echo", "send false"),
        ({"safe_prompt": True}, "safe_prompt", "send false"),
        ({"chat_template": "{{ x }}"}, "chat_template", "leave it out"),
        ({"documents": [{"text": "x"}]}, "documents", "send []"),
        ({"tool_choice": "required"}, "tool_choice", "there are no tools"),
        ({"options": {"banana": 4}}, "options.banana", "not a parameter that this server knows"),
        ({"top_kk": 4}, "top_kk", "do you mean 'top_k'?"),
        ({"temprature": 4}, "temprature", "do you mean 'temperature'?"),
        ({"banana": 4}, "banana", "not a parameter that this server knows"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_under_the_name_that_was_sent(
    fields: dict[str, Any], param: str, message: str
) -> None:
    with pytest.raises(BadRequest) as refused:
        sampled("vllm", **fields)
    assert refused.value.param == param
    assert message in refused.value.message
    assert len(refused.value.message) < 300


def test_an_answer_with_a_form_is_not_thought_about_unless_the_request_says_so() -> None:
    form = {"response_format": {"type": "json_object"}}
    off = {"enable_thinking": False, "thinking": False}
    assert sampled("llamacpp", **form).template_arguments == off
    assert sampled("openai_http", **form).template_arguments == {}
    assert sampled("vllm", reasoning_effort="low", **form).template_arguments["enable_thinking"] is True


async def test_an_answer_names_what_was_ignored(http: httpx.AsyncClient) -> None:
    fields = {"keep_alive": "5m", "options": {"num_ctx": 8192}, "min_tokens": 3, "user": "me"}
    response = await http.post(CHAT, json=MIXTURE | fields)
    assert response.status_code == 200
    assert response.json()["moa"]["ignored"] == ["keep_alive", "options.num_ctx", "min_tokens"]


async def test_sampling_reaches_the_answering_model_alone(
    http: httpx.AsyncClient, scripted: Any
) -> None:
    fields = {"top_k": 20, "min_p": 0.1, "repeat_penalty": 1.05}
    assert (await http.post(CHAT, json=MIXTURE | fields)).status_code == 200
    asked = {model: sampling.said for model, _, sampling in scripted.asked}
    assert asked == {
        "one": {},
        "two": {},
        "writer": {"top_k": 20, "min_p": 0.1, "repetition_penalty": 1.05},
    }
