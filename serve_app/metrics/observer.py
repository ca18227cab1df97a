"""Counts what becomes of requests: an `Observer` whose counts `/metrics` shows.

A counter's values are made from names of the recipe, names of keys and codes of errors alone.
"""

from prometheus_client import CollectorRegistry

from configs.schema import Recipe
from serve_app.metrics import names
from serve_app.metrics.buckets import token_counts
from serve_app.metrics.named import Counters
from serve_app.mixture.events import (
    Answered,
    Call,
    Event,
    Judged,
    Missing,
    ProposalDone,
    ProposalDropped,
    Retried,
    Spent,
    StageDone,
    StageStarted,
    Summary,
    Trimmed,
)
from serve_app.observe import Asked, Ended, Refused, Watcher

NONE = "none"
"""The value of a label where there is no fallback, or no answer."""
AGGREGATOR = "aggregator"
"""The name of the mixture's last stage."""
REASONS = ("overloaded", "rate_limit_exceeded", "invalid_api_key", "invalid_request")
"""Codes of refusals whose counters stand at 0 from the start, with their HTTP status in STATUSES. A
counter that appears with its first event hides that event from PromQL's `rate`."""
STATUSES = ("429", "429", "401", "400")


class CallMetrics:
    """Counts the calls of one model, or the answers of the mixture, under vLLM's names."""

    def __init__(self, metrics: "EventMetrics", model: str) -> None:
        self._success = metrics.success
        self._model = model
        self.prompt_tokens = metrics.prompt_tokens.labels(model)
        self.cached_tokens = metrics.cached_tokens.labels(model)
        self.generation_tokens = metrics.generation_tokens.labels(model)
        self.first = metrics.first.labels(model)
        self.whole = metrics.whole.labels(model)
        self.per_token = metrics.per_token.labels(model)
        self.prompt_size = metrics.prompt_size.labels(model)
        self.answer_size = metrics.answer_size.labels(model)
        for reason in ("stop", "length"):
            self._success.labels(model, reason)

    def tokens(self, read: int, written: int) -> None:
        """Count the tokens of one call or answer."""
        self.prompt_tokens.inc(read)
        self.generation_tokens.inc(written)
        self.prompt_size.observe(read)
        self.answer_size.observe(written)

    def end(self, reason: str, seconds: float, first_s: float | None, written: int) -> None:
        """Note how one call or answer ended.

        Args:
            reason: its finish reason.
            seconds: its time.
            first_s: the part of that time up to its first token; None if it had none.
            written: the tokens that it wrote.
        """
        self._success.labels(self._model, reason).inc()
        self.whole.observe(seconds)
        if first_s is not None:
            self.first.observe(first_s)
            if written > 1:
                self.per_token.observe(max(0.0, seconds - first_s) / (written - 1))


class EngineMetrics(CallMetrics):
    """Counts the calls of one model."""

    def __init__(self, metrics: "EventMetrics", model: str) -> None:
        super().__init__(metrics, model)
        self._queue = metrics.queue.labels(model)
        self._prefill = metrics.prefill.labels(model)
        self._decode = metrics.decode.labels(model)

    def add(self, call: Call) -> None:
        """Count a finished call."""
        self.tokens(call.prompt_tokens, call.completion_tokens)
        self.cached_tokens.inc(call.cached_tokens)
        first_s = None if call.first_s is None else call.queue_s + call.first_s
        seconds = call.queue_s + call.engine_s
        self.end(call.finish_reason, seconds, first_s, call.completion_tokens)
        self._queue.observe(call.queue_s)
        if call.first_s is not None:
            self._prefill.observe(call.first_s)
            self._decode.observe(max(0.0, call.engine_s - call.first_s))


class EventMetrics:
    """All counters of an ingress.

    Args:
        recipe: what is served; its names are the values of labels.
        registry: gets the counters.
    """

    def __init__(self, recipe: Recipe, registry: CollectorRegistry) -> None:
        longest = max(model.context_tokens for model in recipe.models.values())
        made = Counters(registry, token_counts(longest))
        self.quorum = recipe.limits.quorum
        self.prompt_tokens = made.counter(names.PROMPT_TOKENS)
        self.cached_tokens = made.counter(names.CACHED_TOKENS)
        self.generation_tokens = made.counter(names.GENERATION_TOKENS)
        self.success = made.counter(names.SUCCESS)
        self.first = made.histogram(names.FIRST_TOKEN)
        self.whole = made.histogram(names.WHOLE)
        self.queue = made.histogram(names.QUEUE)
        self.prefill = made.histogram(names.PREFILL)
        self.decode = made.histogram(names.DECODE)
        self.per_token = made.histogram(names.PER_TOKEN)
        self.prompt_size = made.histogram(names.PROMPT_SIZE)
        self.answer_size = made.histogram(names.ANSWER_SIZE)
        self.answers = made.counter(names.ANSWERS)
        self.stage = made.histogram(names.STAGE)
        self.after_proposals = made.histogram(names.AFTER_PROPOSALS)
        self.proposals = made.counter(names.PROPOSALS)
        self.stragglers = made.histogram(names.STRAGGLERS)
        self.aggregations = made.counter(names.AGGREGATIONS)
        self.trimmed = made.counter(names.TRIMMED)
        self.retries = made.counter(names.RETRIES)
        self.unused_tokens = made.counter(names.UNUSED_TOKENS)
        self.refusals = made.counter(names.REFUSALS)
        self.key_requests = made.counter(names.KEY_REQUESTS)
        self.key_tokens = made.counter(names.KEY_TOKENS)
        self.key_refusals = made.counter(names.KEY_REFUSALS)
        self.running = made.gauge(names.RUNNING).labels(recipe.name)
        self.mixture = CallMetrics(self, recipe.name)
        self.engines = {name: EngineMetrics(self, name) for name in recipe.names}
        self._start_at_zero(recipe)

    def _start_at_zero(self, recipe: Recipe) -> None:
        for name in (recipe.name, *recipe.names):
            is_mixture = name == recipe.name
            for outcome in ("ok", "degraded") if is_mixture else ("ok",):
                self.answers.labels(name, outcome, NONE, "merge" if is_mixture else "direct")
        for number, layer in enumerate(recipe.layers, 1):
            self.stragglers.labels(str(number))
            self.stage.labels(recipe.name, f"layer {number}")
            for proposer in layer.proposers:
                for outcome in ("done", "late"):
                    self.proposals.labels(proposer.model, str(number), outcome)
        self.stage.labels(recipe.name, AGGREGATOR)
        self.after_proposals.labels(recipe.name)
        for name in recipe.aggregators:
            self.aggregations.labels(name, "done")
        for name in recipe.names:
            for counter in (self.retries, self.trimmed, self.unused_tokens):
                counter.labels(name)
        for reason, status in zip(REASONS, STATUSES, strict=True):
            self.refusals.labels(reason, status)


class MetricsObserver:
    """Counts requests and what became of them."""

    def __init__(self, metrics: EventMetrics) -> None:
        self._metrics = metrics

    def begin(self, asked: Asked) -> Watcher:
        """See `Observer.begin`."""
        metrics = self._metrics
        metrics.key_requests.labels(asked.key).inc()
        if asked.is_mixture:
            metrics.running.inc()
        return _AnswerWatcher(metrics, asked)

    def refuse(self, refused: Refused) -> None:
        """See `Observer.refuse`."""
        code = refused.error.code
        self._metrics.refusals.labels(code, str(refused.status)).inc()
        if refused.key is not None and refused.status == 429:
            self._metrics.key_refusals.labels(refused.key, code).inc()


class _AnswerWatcher:
    """Counts the events of one answer."""

    def __init__(self, metrics: EventMetrics, asked: Asked) -> None:
        self._metrics = metrics
        self._asked = asked
        self._tokens = 0
        """Tokens of all calls so far."""
        self._layer = 0
        """Number of the layer that works now; 0 if none does."""
        self._arrivals: list[float] = []
        """Seconds of the layer's proposals."""
        self._outcomes: dict[int, tuple[str, str]] = {}
        """Model and outcome of the layer's samples, by their place."""

    def event(self, event: Event) -> None:
        """See `Watcher.event`."""
        match event:
            case StageStarted():
                self._layer, self._arrivals, self._outcomes = 0, [], {}
            case ProposalDone() | ProposalDropped():
                self._sample(event)
            case Judged():
                self._add(event.call)
            case Answered():
                self._answered(event)
            case StageDone() if self._asked.is_mixture:
                self._stage(event)
            case Missing() | Spent() | Retried() | Trimmed():
                self._trouble(event)

    def end(self, ended: Ended) -> None:
        """See `Watcher.end`."""
        metrics, summary = self._metrics, ended.summary
        self._count_proposals()
        fallback = method = NONE
        if summary is not None:
            fallback = summary.answered.fallback or NONE
            method = summary.answered.method
        metrics.answers.labels(self._asked.answers, _outcome(ended), fallback, method).inc()
        metrics.key_tokens.labels(self._asked.key).inc(self._tokens)
        if self._asked.is_mixture:
            metrics.running.dec()
            if summary is not None:
                self._mixture(summary, ended.seconds)

    def _sample(self, event: ProposalDone | ProposalDropped) -> None:
        if isinstance(event, ProposalDone):
            self._layer = event.layer
            self._arrivals.append(event.seconds)
            self._outcomes[event.place] = event.model, "done"
            self._add(event.call)
        else:
            self._layer = event.missing.layer
            self._outcomes[event.place] = event.missing.model, event.missing.cause

    def _trouble(self, event: Missing | Spent | Retried | Trimmed) -> None:
        metrics = self._metrics
        match event:
            case Missing():
                if self._asked.is_mixture:
                    metrics.aggregations.labels(event.model, event.cause).inc()
            case Spent():
                self._add(event.call)
                tokens = event.call.prompt_tokens + event.call.completion_tokens
                metrics.unused_tokens.labels(event.call.model).inc(tokens)
            case Retried():
                metrics.retries.labels(event.model).inc()
            case Trimmed():
                metrics.trimmed.labels(event.model).inc(event.tokens_removed)

    def _add(self, call: Call) -> None:
        self._tokens += call.prompt_tokens + call.completion_tokens
        self._metrics.engines[call.model].add(call)

    def _answered(self, event: Answered) -> None:
        if event.call is not None:
            self._add(event.call)
        if self._asked.is_mixture and event.chosen is None:
            outcome = "cut" if event.cut else "done"
            self._metrics.aggregations.labels(event.model, outcome).inc()

    def _stage(self, event: StageDone) -> None:
        metrics, quorum = self._metrics, self._metrics.quorum
        metrics.stage.labels(self._asked.answers, event.stage).observe(event.seconds)
        if self._layer and len(self._arrivals) >= quorum:
            met_s = sorted(self._arrivals)[quorum - 1]
            waited_s = max(0.0, event.seconds - met_s)
            metrics.stragglers.labels(str(self._layer)).observe(waited_s)
        self._count_proposals()

    def _count_proposals(self) -> None:
        """Count the samples of the layer. Until its end, a sample that is done may still be dropped."""
        for model, outcome in self._outcomes.values():
            self._metrics.proposals.labels(model, str(self._layer), outcome).inc()
        self._outcomes = {}

    def _mixture(self, summary: Summary, seconds: float) -> None:
        answered, last = summary.answered, summary.stages[-1]
        mixture = self._metrics.mixture
        mixture.tokens(summary.conversation_tokens, answered.tokens)
        after_s, written = last.seconds, 0  # a proposal is there all at once
        if answered.first_s is not None and answered.chosen is None:
            after_s, written = answered.at_s + answered.first_s, answered.tokens
        if last.stage == AGGREGATOR:  # a layer is the last stage where a proposal ends the answer early
            self._metrics.after_proposals.labels(self._asked.answers).observe(after_s)
        first_s = min(last.at_s + after_s, seconds)
        mixture.end(answered.finish_reason, seconds, first_s, written)


def _outcome(ended: Ended) -> str:
    """The value of the label `outcome` of an answer."""
    if ended.error is not None:
        return ended.error.code
    if ended.summary is None:
        return "left"
    if ended.summary.answered.cut:
        return "cut"
    return "degraded" if ended.summary.degraded else "ok"
