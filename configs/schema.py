"""The recipe: every setting of SlimMoA as frozen, strict Pydantic models.

All defaults of settings stand in these models. Units stand in the names: `_s` seconds, `_bytes`,
`_tokens`. A recipe says what should be; the code here knows nothing of Ray, HTTP or engines.
"""

import json
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from configs.access import Access
from configs.base import Many, Name, Seconds, Strict
from configs.cross_checks import inconsistencies
from configs.llamacpp import Switch
from configs.methods import AnswerForm, Exit, First, Method, short_calls
from configs.models import LlamaCppModel, Model, ModelBase, OpenAIHttpModel, ScriptedModel, VllmModel
from configs.routes import Route
from configs.sampling import AnySampling, ModelSampling, ReasoningEffort, Sampling

__all__ = [
    "Access",
    "Aggregator",
    "AnswerForm",
    "Cards",
    "Exit",
    "First",
    "Layer",
    "Limits",
    "LlamaCppModel",
    "Method",
    "Model",
    "ModelBase",
    "ModelSampling",
    "OpenAIHttpModel",
    "Proposer",
    "ReasoningEffort",
    "Recipe",
    "References",
    "Route",
    "Sampling",
    "ScriptedModel",
    "VllmModel",
]
"""Other packages import all settings from here, whichever file of `configs` defines them."""


def default_prompt() -> str:
    """The default aggregation prompt, which the package ships: MoA's instructions in other words."""
    return resources.files("configs").joinpath("aggregate.txt").read_text("utf-8")


class Proposer(Strict):
    """A model that gives proposals to a layer."""

    model: Name
    """Name of a model of this recipe. Several proposers may have the same model."""
    samples: int = Field(1, ge=1, le=32)
    """Number of proposals from this proposer, each drawn with another seed (Self-MoA)."""
    sampling: AnySampling = Sampling()
    """How the proposals are sampled."""


class Layer(Strict):
    """Proposers that answer at the same time. From layer 2 on, they read the last layer's proposals."""

    proposers: Many[Proposer] = Field(min_length=1)
    """The proposers, the most trusted first. If all aggregators fail, the answer is the first proposal
    in this order."""
    see: int | None = Field(None, ge=1, le=1024)
    """How many of the last layer's proposals each proposal of this layer is written from. Each gets its
    own, which are drawn anew for each (RSA, SMoA). By default each gets all of them."""

    @property
    def samples(self) -> int:
        """Number of proposals that the layer gives when nothing fails."""
        return self.samples_by_model().total()

    def samples_by_model(self) -> Counter[str]:
        """Number of proposals that each model gives to the layer; 0 for every other model."""
        counts = Counter[str]()
        for proposer in self.proposers:
            counts[proposer.model] += proposer.samples
        return counts


class Aggregator(Strict):
    """The model that reads the last layer's proposals and writes the answer."""

    model: Name
    """Name of a model of this recipe."""
    sampling: AnySampling = Sampling()
    """How the answer is sampled, unless the request gives other values."""
    fallbacks: Many[Name] = ()
    """Models that take over, in this order, when the model before fails before its first token."""
    first_token_timeout_s: Seconds | None = None
    """Longest wait for the first token; then the next model takes over. By default the deadline."""
    method: Method = "merge"
    """How one answer is made of the proposals. `merge`: the aggregator writes an answer from all of
    them. `select`: the aggregator says which proposal is best, and that proposal is the answer.
    `select_or_merge`: as `select`; if the aggregator is not sure, it merges the best two. `vote`: the
    proposals vote, and a proposal with the answer that wins is the answer (docs/methods.md)."""
    margin: float = Field(0.15, ge=0, le=1)
    """How much more probable the best proposal has to be than the second, for `select` and
    `select_or_merge`. If it is less, `select` takes the more trusted of the two."""
    answer: AnswerForm | None = None
    """Where the answer stands in a proposal. `vote` needs this setting, and `guard` uses it."""
    guard: bool = False
    """Whether proposals that disagree are marked before they are merged. Two proposals agree if their
    answers are the same (`aggregator.answer` or `exit.answer` says where an answer stands). If no
    answer is found in one of the two, the aggregator is asked whether both come to the same conclusion.
    The aggregator's prompt then says which proposals agree. No proposal is dropped, because a proposal
    that differs may be right."""
    overlap: Switch = "auto"
    """Whether the aggregator reads the first proposals while the others are still written
    (docs/overlap.md). `auto`: only if the aggregator merges, the request has no seed, and the recipe
    has no `exit`. With a seed, the text has to come again, but if a prompt is read in other steps, the
    last bits of the results may differ. `on`: also with a seed, and also with an `exit`."""


class References(Strict):
    """How proposals enter a prompt."""

    style: Literal["system", "tail"] = "system"
    """`system` appends them to the system message, as MoA does. `tail` appends them to the last user
    message: the prompt before them stays the same, so the prefix cache helps in a conversation."""
    prompt: str = Field(default_factory=default_prompt, min_length=1)
    """Instructions that stand before the references."""
    prompt_file: str | None = None
    """File with the instructions, in the recipe's folder or below; not together with `prompt`."""
    order: Literal["seeded", "arrival"] = "seeded"
    """Order of the references in a prompt. `seeded`: the answer's seed draws the order before any
    proposal has come. `arrival`: the order in which the proposals came. Then the aggregator can read
    more of them early (`aggregator.overlap`). But short proposals of fast models stand first, and the
    same seed does not give the same order again."""
    item: str = "<response {number}>\n{text}\n</response {number}>"
    """Form of one reference (a proposal in a prompt). The form needs {text} and may have {number}.
    MoA's form is `{number}. {text}`."""


class Limits(Strict):
    """Deadlines of an answer, the quorum of a layer, and limits of queues, requests and streams."""

    deadline_s: Seconds = 300
    """Longest time of one answer, with all layers and the aggregator."""
    layer_deadline_s: Seconds = 120
    """Longest time of one layer. The answer is made without proposals that are late."""
    quorum: int = Field(1, ge=1, le=1024)
    """Fewest proposals that a layer needs. If the first layer has fewer, the answer fails (503). If a
    later layer has fewer, the layer is left out, and the next stage reads the proposals before that
    layer."""
    grace_s: Annotated[float, Field(ge=0, le=86_400)] | None = None
    """Time that a layer waits for further proposals once the quorum is reached. By default the layer
    waits until its deadline."""
    queue: int | None = Field(None, ge=0, le=100_000)
    """Most calls that wait at one replica. A further call is refused (429). The default is
    `(2 * stages - 1) * concurrency`, where the stages are the layers and the aggregator: waiting then
    about doubles the time of an answer. By default at least all calls that one answer makes of the
    model at a time may wait."""
    keepalive_s: Seconds = 5
    """Time after which a silent stream sends a comment, so that proxies and clients keep it open."""
    max_body_bytes: int = Field(1_048_576, ge=1024, le=1_073_741_824)
    """Most bytes of a request body. A larger body is refused (413)."""
    read_timeout_s: Seconds = 30
    """Longest time in which the headers of a request have to arrive, and longest time for its body. A
    slower request is refused (408)."""
    write_timeout_s: Seconds = 60
    """Longest time that a stream waits for a client that reads nothing. Then its calls are ended."""
    drain_s: Seconds = 30
    """Longest time that answers in work still get when the server stops. Answers that take longer end
    with an error (503). New requests are refused meanwhile."""


CardName = Annotated[str, Field(min_length=1, max_length=128)]


class Cards(Strict):
    """The cards that models are placed on, and how they are shared."""

    names: Many[CardName] = ()
    """Names of cards (`RTX 3090`, `A100-80GB`), to plan for another machine. By default this machine's
    cards."""
    memory_bytes: int | None = Field(None, ge=1)
    """Most bytes to use of each GPU, or of the RAM on a CPU. By default all bytes but a reserve."""
    host_memory_bytes: int | None = Field(None, ge=1)
    """Most bytes of a node's RAM for weights of sleeping models of GPUs. By default most of the RAM."""
    tensor_parallel: Literal[1, 2, 4, 8] | None = None
    """Number of GPUs of one node over which each model of vLLM is split. By default as few as the
    models need. These GPUs count as one card, which has its own slots."""
    patience_s: Seconds = 30
    """Time that a call waits for its model; then the turn of the model that is awake ends."""


class Recipe(Strict):
    """One mixture: its models, layers, aggregator and limits."""

    name: Name
    """The mixture's model name in the API."""
    description: str = ""
    """One line for people."""
    models: dict[Name, Model] = Field(min_length=1)
    """The models by name. A request may also ask a single model by its name."""
    layers: Many[Layer] = Field(min_length=1)
    """The layers in order."""
    aggregator: Aggregator
    """The model that writes the answer."""
    references: References = Field(default_factory=References)
    """How the proposals of one layer enter the prompts of the next."""
    exit: Exit | None = None
    """Ends an answer as soon as enough proposals agree. By default all proposals are waited for."""
    first: First | None = None
    """Lets the first proposer of the first layer answer alone where it is sure. By default all
    proposers are always asked."""
    cards: Cards = Cards()
    """The cards that the models are placed on, and how they share them."""
    limits: Limits = Limits()
    """Deadlines, the quorum, and limits of queues, requests and streams."""
    show_proposals: bool = True
    """Whether streams, and all answers of the Responses API, show the proposals as reasoning, so that
    chat clients show them in a fold. A request may say otherwise (`moa.proposals`)."""
    routes: Many[Route] | None = None
    """Which requests one model answers in place of the mixture; the first route that takes a request
    counts. By default the aggregator's model answers all helper tasks: short tasks that chat clients
    give by themselves, such as titles. An empty list leaves everything with the mixture. A request may
    say so too (`moa.routes`)."""
    access: Access = Access()
    """Who may use the endpoint, and how much each API key may ask for."""

    @property
    def stages(self) -> int:
        """Number of stages of one answer, which run one after the other: the layers, the aggregator."""
        return len(self.layers) + 1

    @property
    def samples(self) -> tuple[int, ...]:
        """Number of proposals of each layer when nothing fails."""
        return tuple(layer.samples for layer in self.layers)

    @property
    def aggregators(self) -> tuple[str, ...]:
        """The models that may write the answer: the aggregator, then its fallbacks in order."""
        return (self.aggregator.model, *self.aggregator.fallbacks)

    @property
    def names(self) -> tuple[str, ...]:
        """All names that can be asked beside the mixture: the models, each with its adapters after
        it."""
        return tuple(
            name
            for model, settings in self.models.items()
            for name in (model, *getattr(settings, "adapters", ()))
        )

    @property
    def adapters(self) -> dict[str, str]:
        """The model of each adapter, by the adapter's name."""
        return {
            name: model
            for model, settings in self.models.items()
            for name in getattr(settings, "adapters", ())
        }

    def host(self, name: str) -> str:
        """The model whose engine answers for a name: the model itself, or that of an adapter.

        Raises:
            KeyError: the recipe has no such name.
        """
        return name if name in self.models else self.adapters[name]

    def settings(self, name: str) -> Model:
        """The settings of a model or an adapter. An adapter has those of its model, and its own
        arguments of the chat template.

        Raises:
            KeyError: the recipe has no such name.
        """
        model = self.models[self.host(name)]
        return model.as_adapter(name) if name not in self.models else model  # type: ignore[union-attr]

    def proposers(self) -> Iterator[Proposer]:
        """All proposers, layer by layer."""
        for layer in self.layers:
            yield from layer.proposers

    def calls_per_answer(self, model: str | None = None) -> int:
        """Number of engine calls that one answer takes when nothing fails and nothing ends it early.

        Calls by which a judge looks for agreement (`exit.judge`) are not counted: how many there are
        depends on the proposals.

        Args:
            model: whose calls to count, those of its adapters included; None for the calls of all
                models together.
        """
        if model is None:
            return sum(self.samples) + self._last_calls
        proposals = sum(self._calls_by_host(layer)[model] for layer in self.layers)
        return proposals + (self._last_calls if model == self._host(self.aggregator.model) else 0)

    @property
    def short_calls(self) -> int:
        """Number of short calls by which the aggregator picks a proposal and compares proposals."""
        aggregator = self.aggregator
        return short_calls(aggregator.method, self.samples[-1], guard=aggregator.guard)

    @property
    def _last_calls(self) -> int:
        """Most calls of the aggregator in the last stage. A vote that finds no answer merges."""
        return self.short_calls + (self.aggregator.method != "select")

    def _host(self, name: str) -> str:
        """`host`, or the name itself if the recipe does not have it."""
        return name if name in self.models else self.adapters.get(name, name)

    def _calls_by_host(self, layer: Layer) -> Counter[str]:
        """Number of calls that a layer makes to each model and its adapters."""
        counts = Counter[str]()
        for name, samples in layer.samples_by_model().items():
            counts[self._host(name)] += samples
        return counts

    def calls_at_once(self, name: str) -> dict[str, int]:
        """Most calls of each model that one answer has in flight at the same time, by the model's name.
        Calls of adapters count as calls of their model.

        Args:
            name: who answers: the mixture's name, or the name of a model that answers alone.
        """
        if name != self.name:
            return {self._host(name): 1}
        aggregator = self._host(self.aggregator.model)
        judges = Counter({aggregator: int(self.exit is not None and self.exit.judge)})
        most = Counter({aggregator: max(1, self.short_calls)})
        for layer in self.layers:
            most |= self._calls_by_host(layer) + judges
        return dict(most)

    def longest_answer(self, model: str) -> int:
        """Most tokens that a model, or an adapter over it, may write in one call of the mixture; 0 if
        it is never called."""
        samplings = [p.sampling for p in self.proposers() if self._host(p.model) == model]
        if model in map(self._host, self.aggregators):
            samplings.append(self.aggregator.sampling)
        return max((sampling.most_tokens for sampling in samplings), default=0)

    def queue_limit(self, model: str) -> int:
        """Most calls that may wait at one replica of a model.

        `limits.queue` gives the number. By default, the number is such that waiting about doubles the
        time of an answer. An answer is in one stage at a time, so `stages * concurrency` answers keep
        all stages busy, and twice as many answers take twice as long (Little's law). At worst the calls
        of all these answers are at one replica: `concurrency` calls run there, and the others wait.
        While the model is away, all calls of an answer wait, so at least they have room.
        """
        if self.limits.queue is not None:
            return self.limits.queue
        one_answer = self.calls_at_once(self.name).get(model, 1)
        return max((2 * self.stages - 1) * self.models[model].concurrency, one_answer)

    def capacity_per_replica(self, model: str) -> int:
        """Most calls that one replica of a model holds: the running and the waiting calls together."""
        return self.models[model].concurrency + self.queue_limit(model)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        problems = inconsistencies(self.model_dump())
        if problems:
            text = "; ".join(f"{'.'.join(map(str, p.where))}: {p.message}" for p in problems)
            raise PydanticCustomError("inconsistent", "{text}", {"text": text, "problems": problems})
        return self


def json_schema() -> dict[str, Any]:
    """The JSON schema of a recipe, as committed in `configs/schema.json`."""
    return Recipe.model_json_schema() | {"$schema": "https://json-schema.org/draft/2020-12/schema"}


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
