"""Every metric of `/metrics`: its name, kind, labels and meaning. docs/metrics.md is made from it.

A name that begins with `vllm:` is vLLM's, and means here what it means in vLLM 0.33
(`vllm/v1/metrics/loggers.py`); a call stands in the place of vLLM's request. What vLLM measures and
nobody here can know has no metric: no KV cache usage, no latency between two tokens, no preemptions.

No label has a value from a request's text: each value is a name of the recipe, the name of an API key,
a card, a state, or the code of an error.
"""

from serve_app.metrics.buckets import FIRST_TOKEN_S, LATENCY_S, TOKEN_S
from serve_app.metrics.named import ENGINE, MODEL, Named

RUNNING = Named(
    "vllm:num_requests_running",
    "gauge",
    (MODEL,),
    "Calls that engines work on, over all replicas of the model. For the mixture: answers in work.",
)
WAITING = Named(
    "vllm:num_requests_waiting",
    "gauge",
    (MODEL,),
    "Calls that wait for the model's turn or for room in its engine, over all replicas.",
)
SLEEP_STATE = Named(
    "vllm:engine_sleep_state",
    "gauge",
    ("card", MODEL, ENGINE, "sleep_state"),
    "1 for the state of a replica's engine. awake: on the card. weights_offloaded: asleep, with its "
    "weights in host RAM. discard_all: stopped; it starts from disk.",
)
PROMPT_TOKENS = Named(
    "vllm:prompt_tokens_total",
    "counter",
    (MODEL,),
    "Tokens that calls have read. For the mixture: those of conversations, as `usage` has them, so do "
    "not add the mixture to its models.",
)
CACHED_TOKENS = Named(
    "vllm:prompt_tokens_cached_total",
    "counter",
    (MODEL,),
    "Tokens of prompts that the engine took from its cache. An engine that does not tell this number "
    "adds nothing.",
)
GENERATION_TOKENS = Named(
    "vllm:generation_tokens_total",
    "counter",
    (MODEL,),
    "Tokens that calls have written, reasoning included. For the mixture: those of its answers.",
)
SUCCESS = Named(
    "vllm:request_success_total",
    "counter",
    (MODEL, "finished_reason"),
    "Calls that ended with a whole answer, by its end: stop, length or content_filter. For the "
    "mixture: its answers.",
)
FIRST_TOKEN = Named(
    "vllm:time_to_first_token_seconds",
    "histogram",
    (MODEL,),
    "From a call's arrival at its replica to the first token, reasoning included. For the mixture: "
    "from the request to the first token of the answer.",
    FIRST_TOKEN_S,
)
WHOLE = Named(
    "vllm:e2e_request_latency_seconds",
    "histogram",
    (MODEL,),
    "From a call's arrival at its replica to its end. For the mixture: the whole answer.",
    LATENCY_S,
)
QUEUE = Named(
    "vllm:request_queue_time_seconds",
    "histogram",
    (MODEL,),
    "Time that a call waited for the model's turn and for room in its engine. The mixture has none.",
    LATENCY_S,
)
PREFILL = Named(
    "vllm:request_prefill_time_seconds",
    "histogram",
    (MODEL,),
    "From the beginning of the engine's work on a call to the first token. For a model on another "
    "server, the wait at that server counts too.",
    LATENCY_S,
)
DECODE = Named(
    "vllm:request_decode_time_seconds",
    "histogram",
    (MODEL,),
    "From a call's first token to its end.",
    LATENCY_S,
)
PER_TOKEN = Named(
    "vllm:request_time_per_output_token_seconds",
    "histogram",
    (MODEL,),
    "Time between two tokens, as the mean of one call or of one answer of the mixture.",
    TOKEN_S,
)
PROMPT_SIZE = Named(
    "vllm:request_prompt_tokens",
    "histogram",
    (MODEL,),
    "Tokens that one call has read. For the mixture: those of one conversation.",
)
ANSWER_SIZE = Named(
    "vllm:request_generation_tokens",
    "histogram",
    (MODEL,),
    "Tokens that one call has written. For the mixture: those of one answer.",
)

ANSWERS = Named(
    "slimmoa_answers_total",
    "counter",
    (MODEL, "outcome", "fallback", "method"),
    "Admitted requests, by their end and by the name that answers: the mixture, or a model that the "
    "client or a route of the recipe names. outcome: ok, degraded, cut (by the deadline), left (the "
    "client left), or the code of the error. fallback: aggregator, reference (the answer was a "
    "proposal), or none. method: how the text came about (merge, select, vote, agreement, first, "
    "stand_in, direct), or none.",
)
STAGE = Named(
    "slimmoa_stage_seconds",
    "histogram",
    (MODEL, "stage"),
    "Time of one stage of the mixture's answer: each layer, and the aggregator.",
    LATENCY_S,
)
AFTER_PROPOSALS = Named(
    "slimmoa_ttft_after_last_proposal_seconds",
    "histogram",
    (MODEL,),
    "From the end of the last layer to the first token of the mixture's answer.",
    FIRST_TOKEN_S,
)
PROPOSALS = Named(
    "slimmoa_proposals_total",
    "counter",
    (MODEL, "layer", "outcome"),
    "Proposals that layers asked for. outcome: done, not_needed (the answer was there before), or why "
    "a proposal was dropped: late, empty, only_reasoning, content_filter, quorum_not_met, or the code "
    "of an error.",
)
STRAGGLERS = Named(
    "slimmoa_straggler_wait_seconds",
    "histogram",
    ("layer",),
    "Time for which a layer went on after its quorum was met.",
    LATENCY_S,
)
AGGREGATIONS = Named(
    "slimmoa_aggregations_total",
    "counter",
    (MODEL, "outcome"),
    "Attempts of models at the mixture's answer. outcome: done, cut (by the deadline), or why another "
    "model took over.",
)
TRIMMED = Named(
    "slimmoa_reference_tokens_trimmed_total",
    "counter",
    (MODEL,),
    "Tokens of references that were cut because the model's context had no room for them.",
)
RETRIES = Named(
    "slimmoa_retries_total",
    "counter",
    (MODEL,),
    "Calls that were lost with their replica and made again on another one.",
)
UNUSED_TOKENS = Named(
    "slimmoa_unused_tokens_total",
    "counter",
    (MODEL,),
    "Tokens of calls that ended with nothing usable. Those of cancelled calls are not known.",
)
REFUSALS = Named(
    "slimmoa_refusals_total",
    "counter",
    ("reason", "status"),
    "Requests that were refused before any model worked on them, by the error's code and HTTP status.",
)
KEY_REQUESTS = Named(
    "slimmoa_key_requests_total",
    "counter",
    ("key",),
    "Admitted requests of an API key, by the key's name; anyone where no key is needed.",
)
KEY_TOKENS = Named(
    "slimmoa_key_tokens_total",
    "counter",
    ("key",),
    "Tokens of all finished calls that a key's requests made, prompts included: what "
    "tokens_per_minute limits.",
)
KEY_REFUSALS = Named(
    "slimmoa_key_refusals_total",
    "counter",
    ("key", "reason"),
    "Requests of a key that were refused for now (429). reason: rate_limit_exceeded (a limit of the "
    "key, or its fair share) or overloaded (queues are full).",
)
INFO = Named(
    "slimmoa_info",
    "gauge",
    ("version", MODEL),
    "Always 1: the version of SlimMoA, and the name of the mixture.",
)
UP = Named(
    "slimmoa_up",
    "gauge",
    ("part", "name"),
    "Whether a part of the server answered this scrape in time: the keeper of a card, a replica of a "
    "model, an ingress. The values of a part that did not answer are left out.",
)
REPLICAS = Named(
    "slimmoa_replicas",
    "gauge",
    (MODEL,),
    "Replicas of the model that answered this scrape.",
)
OLDEST_WAIT = Named(
    "slimmoa_oldest_wait_seconds",
    "gauge",
    (MODEL,),
    "Time for which the oldest waiting call of the model has waited; 0 if none waits.",
)
CARD_BYTES = Named("slimmoa_card_bytes", "gauge", ("card",), "Memory of the card; 0 if nobody knows.")
MEMBER_BYTES = Named(
    "slimmoa_member_bytes",
    "gauge",
    ("card", MODEL, ENGINE, "when"),
    "Memory of the card that a replica's engine holds by the plan. when: awake, asleep, or now.",
)
MEMBER_STATE = Named(
    "slimmoa_member_state",
    "gauge",
    ("card", MODEL, ENGINE, "state"),
    "1 for the state of a replica's engine, 0 for all others; resident means awake.",
)
MEMBER_TURN = Named(
    "slimmoa_member_turn_open",
    "gauge",
    ("card", MODEL, ENGINE),
    "1 while the replica has a turn: while it may start calls.",
)
ORDERS = Named(
    "slimmoa_orders_total",
    "counter",
    ("card", MODEL, ENGINE, "order"),
    "Orders of the card's keeper to a replica. Each open begins a turn; each wake or start ends a "
    "swap; restart and kill follow a failure.",
)
STEP_SECONDS = Named(
    "slimmoa_step_seconds_total",
    "counter",
    ("card", MODEL, ENGINE, "state"),
    "Time of all steps of a replica's engine, by the state in which they ended: resident (starts and "
    "wakes), asleep, stopped.",
)

OF_INGRESSES = (
    *(PROMPT_TOKENS, CACHED_TOKENS, GENERATION_TOKENS, SUCCESS, FIRST_TOKEN, WHOLE, QUEUE, PREFILL),
    *(DECODE, PER_TOKEN, PROMPT_SIZE, ANSWER_SIZE, ANSWERS, STAGE, AFTER_PROPOSALS, PROPOSALS),
    *(STRAGGLERS, AGGREGATIONS, TRIMMED, RETRIES, UNUSED_TOKENS, REFUSALS, KEY_REQUESTS, KEY_TOKENS),
    *(KEY_REFUSALS, INFO),
)
"""The metrics that every ingress has for itself, with the label INGRESS."""
OF_ALL = (
    *(RUNNING, WAITING, SLEEP_STATE, UP, REPLICAS, OLDEST_WAIT, CARD_BYTES, MEMBER_BYTES),
    *(MEMBER_STATE, MEMBER_TURN, ORDERS, STEP_SECONDS),
)
"""The metrics of models and cards, which are asked for when Prometheus scrapes. RUNNING of the mixture
is an ingress's own."""
