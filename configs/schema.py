"""The recipe: every setting of SlimMoA as frozen, strict models.

This is the only place of defaults in the project. Units stand in the names: `_s` seconds,
`_bytes`, `_tokens`. A recipe says what should be; it knows nothing of Ray, HTTP or engines.
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
from configs.models import LlamaCppModel, Model, ModelBase, OpenAIHttpModel, ScriptedModel, VllmModel

__all__ = [
    "Access",
    "Aggregator",
    "Cards",
    "Layer",
    "Limits",
    "LlamaCppModel",
    "Model",
    "ModelBase",
    "OpenAIHttpModel",
    "Proposer",
    "Recipe",
    "References",
    "Sampling",
    "ScriptedModel",
    "VllmModel",
]
"""Other packages import every setting from here, whichever file of `configs` defines it."""


def default_prompt() -> str:
    """The aggregation prompt that the package ships: MoA's instructions in our own words."""
    return resources.files("configs").joinpath("aggregate.txt").read_text("utf-8")


class Sampling(Strict):
    """How one call samples its text. Defaults are MoA's (temperature 0.7, 512 tokens)."""

    temperature: float = Field(0.7, ge=0, le=2)
    """0 is greedy; higher is more varied."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus sampling: draw from the likeliest tokens that together have this probability."""
    max_tokens: int = Field(512, ge=1, le=1_000_000)
    """Most tokens to write. A prompt has to leave this many free in the model's context."""
    stop: Many[Annotated[str, Field(min_length=1, max_length=256)]] = Field((), max_length=16)
    """Texts that end the answer; they are not part of it."""
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    """The same seed, prompt and engine give the same text, where the engine can promise that."""
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    """Above 0 it discourages tokens that have occurred at all."""
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    """Above 0 it discourages tokens by how often they have occurred."""
    top_logprobs: int | None = Field(None, ge=0, le=20)
    """Return the log-probability of each written token and of this many others; by default none."""


class Proposer(Strict):
    """A model that gives proposals to a layer."""

    model: Name
    """A model of this recipe; several proposers may have the same model."""
    samples: int = Field(1, ge=1, le=32)
    """Proposals that it gives, each drawn with another seed (Self-MoA)."""
    sampling: Sampling = Sampling()
    """How its proposals are sampled."""


class Layer(Strict):
    """Proposers that answer at the same time. From layer 2 on they read the previous proposals."""

    proposers: Many[Proposer] = Field(min_length=1)
    """The proposers, the most trusted first. If all aggregators fail, the answer is the proposal of
    the first proposer that gave one."""

    @property
    def samples(self) -> int:
        """Proposals that the layer gives when nothing fails."""
        return self.samples_by_model().total()

    def samples_by_model(self) -> Counter[str]:
        """Proposals that each model gives to the layer; 0 for every other model."""
        counts = Counter[str]()
        for proposer in self.proposers:
            counts[proposer.model] += proposer.samples
        return counts


class Aggregator(Strict):
    """The model that reads the last layer's proposals and writes the answer."""

    model: Name
    """A model of this recipe."""
    sampling: Sampling = Sampling()
    """How the answer is sampled, as far as the request does not say."""
    fallbacks: Many[Name] = ()
    """Models that take over, in this order, when the one before fails before its first token."""
    first_token_timeout_s: Seconds | None = None
    """Longest wait for the first token before the next model takes over; by default the deadline."""


class References(Strict):
    """How proposals enter a prompt."""

    style: Literal["system", "tail"] = "system"
    """`system` appends them to the system message, as MoA does. `tail` appends them to the last user
    message: the prompt before them stays the same, so the prefix cache helps in a conversation."""
    prompt: str = Field(default_factory=default_prompt, min_length=1)
    """Instructions that stand before the references."""
    prompt_file: str | None = None
    """File with the instructions, in the recipe's folder or below it; give it or `prompt`, not both."""
    item: str = "<response {number}>\n{text}\n</response {number}>"
    """Form of one reference. It has {text} and may have {number}; MoA's is `{number}. {text}`."""


class Limits(Strict):
    """Deadlines, the quorum, and how much the endpoint takes in."""

    deadline_s: Seconds = 300
    """Longest time of one answer: all layers and the aggregator."""
    layer_deadline_s: Seconds = 120
    """Longest time of one layer; proposers that are late are left out of the answer."""
    quorum: int = Field(1, ge=1, le=1024)
    """Fewest proposals with which a layer counts. Below it the first layer fails the answer (503); a
    later layer is left out, and the proposals before it are used again."""
    grace_s: Annotated[float, Field(ge=0, le=86_400)] | None = None
    """Time that the other proposers still have once the quorum is reached; by default until the
    layer's deadline."""
    queue: int | None = Field(None, ge=0, le=100_000)
    """Calls that may wait at one replica beyond its concurrency; a further one is refused (429). By
    default the concurrency times one less than twice the number of stages (the layers and the
    aggregator), so that waiting about doubles the time of an answer."""
    keepalive_s: Seconds = 5
    """A silent stream sends a comment this often, so that proxies and clients keep it open."""
    max_body_bytes: int = Field(1_048_576, ge=1024, le=1_073_741_824)
    """Largest request body; a larger one is refused (413)."""
    read_timeout_s: Seconds = 30
    """Longest time in which a request body has to arrive; a slower one is refused (408)."""
    write_timeout_s: Seconds = 60
    """Longest time that a stream waits for a client that reads nothing; then its calls are ended."""


class Cards(Strict):
    """The cards that models are placed on, and how they are shared."""

    names: Many[Name] = ()
    """Cards by name (`A100-80GB`), to plan for another machine; by default this machine's cards."""
    memory_bytes: int | None = Field(None, ge=1)
    """Most bytes to use of each GPU, or of the RAM on a CPU; by default all but a reserve."""
    host_memory_bytes: int | None = Field(None, ge=1)
    """Most bytes of RAM for the weights of sleeping models of GPUs; by default most of the RAM."""
    tensor_parallel: Literal[1, 2, 4, 8] | None = None
    """GPUs of one node over which each model of vLLM is split; by default as few as it takes. These
    GPUs then count as one card, which has its own slots."""
    patience_s: Seconds = 30
    """A call that has waited this long for its model ends the turn of the model that is awake."""


class Recipe(Strict):
    """One mixture: its models, layers, aggregator and limits."""

    name: Name
    """The mixture's model name in the API."""
    description: str = ""
    """One line for people."""
    models: dict[Name, Model] = Field(min_length=1)
    """The models by name. A request may also ask one of them alone, by that name."""
    layers: Many[Layer] = Field(min_length=1)
    """The layers in order."""
    aggregator: Aggregator
    """The model that writes the answer."""
    references: References = Field(default_factory=References)
    """How the proposals of one layer enter the prompts of the next."""
    cards: Cards = Cards()
    """The cards that the models are placed on, and how they share them."""
    limits: Limits = Limits()
    """Deadlines, quorum and sizes."""
    access: Access = Access()
    """Who may use the endpoint, and how much each key may ask for."""

    @property
    def stages(self) -> int:
        """Stages of one answer, which follow each other: the layers, then the aggregator."""
        return len(self.layers) + 1

    @property
    def samples(self) -> tuple[int, ...]:
        """Proposals of each layer when nothing fails."""
        return tuple(layer.samples for layer in self.layers)

    @property
    def aggregators(self) -> tuple[str, ...]:
        """The models that may write the answer: the aggregator, then its fallbacks in order."""
        return (self.aggregator.model, *self.aggregator.fallbacks)

    def proposers(self) -> Iterator[Proposer]:
        """All proposers, layer by layer."""
        for layer in self.layers:
            yield from layer.proposers

    def calls_per_answer(self, model: str | None = None) -> int:
        """Engine calls that one answer takes when nothing fails: of one model, or of all together."""
        if model is None:
            return sum(self.samples) + 1
        proposals = sum(layer.samples_by_model()[model] for layer in self.layers)
        return proposals + (1 if model == self.aggregator.model else 0)

    def calls_at_once(self, name: str) -> dict[str, int]:
        """Most calls of each model that one answer has in flight at the same time.

        Args:
            name: whose answer: the mixture's name, or a model's for an answer by that model alone.
        """
        if name != self.name:
            return {name: 1}
        most = Counter({self.aggregator.model: 1})
        for layer in self.layers:
            most |= layer.samples_by_model()
        return dict(most)

    def longest_answer(self, model: str) -> int:
        """Most tokens that the mixture lets a model write in one call; 0 if it never calls it."""
        samplings = [proposer.sampling for proposer in self.proposers() if proposer.model == model]
        if model in self.aggregators:
            samplings.append(self.aggregator.sampling)
        return max((sampling.max_tokens for sampling in samplings), default=0)

    def queue_limit(self, model: str) -> int:
        """Calls that may wait at one replica of a model.

        Unless `limits.queue` gives the number, waiting shall about double the time of an answer. An
        answer is in one stage at a time, so stages * concurrency answers keep all stages busy, and
        twice as many answers take twice as long (Little's law). At worst all of them are at one
        replica: `concurrency` of their calls run, the others wait.
        """
        if self.limits.queue is not None:
            return self.limits.queue
        return (2 * self.stages - 1) * self.models[model].concurrency

    def capacity_per_replica(self, model: str) -> int:
        """Calls that one replica of a model takes in: those that run, and those that wait."""
        return self.models[model].concurrency + self.queue_limit(model)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        problems = inconsistencies(self.model_dump())
        if problems:
            text = "; ".join(f"{'.'.join(map(str, p.where))}: {p.message}" for p in problems)
            raise PydanticCustomError("inconsistent", "{text}", {"text": text, "problems": problems})
        return self


def json_schema() -> dict[str, Any]:
    """The recipe's JSON schema, as committed in `configs/schema.json`."""
    return Recipe.model_json_schema() | {"$schema": "https://json-schema.org/draft/2020-12/schema"}


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
