"""What vLLM is told of a chat: harmless messages, arguments of the template, limits of reasoning.

Imports no vLLM.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from actors.engine import Delta, FinishReason, Message
from actors.text.control_tokens import Defuser, from_folder
from actors.text.thinking import AnswerLimit, Splitter, without_leading_thought
from actors.text.thinking_marks import families_of
from configs.schema import Sampling, VllmModel

TAIL_TOKENS = 24
"""How many of a prompt's last tokens are looked at to find out whether the prompt begins a thought."""


class Chat:
    """The chat format of one model.

    Args:
        model: the model's settings.
        folder: the model's checkpoint.
    """

    def __init__(self, model: VllmModel, folder: Path) -> None:
        self._model = model
        control, template = from_folder(folder)
        self._families = families_of(model.reasoning_format, template)
        self._defuser = Defuser(control)

    def note_tokenizer(self, tokenizer: Any) -> None:
        """Take in the control tokens that vLLM's tokenizer names beyond those of the folder's files."""
        self._defuser = Defuser(self._defuser.marks | {str(t) for t in _special(tokenizer)})

    @property
    def reasoning_config(self) -> dict[str, str] | None:
        """Arguments of vLLM's `ReasoningConfig`; None for a model that does not think."""
        if not self._families:
            return None
        family = self._families[0]
        return {"reasoning_start_str": family.begins[0], "reasoning_end_str": family.closing}

    def harmless(self, messages: Sequence[Message]) -> list[Message]:
        """The messages as the model may read them: no control tokens, no thoughts of old answers."""
        return self._defuser.harmless(without_leading_thought(messages, self._families))

    def defuse(self, text: str) -> str:
        """A text with its control tokens made harmless."""
        return self._defuser.defuse(text)

    def arguments(self, template: Mapping[str, Any], turns: Sequence[Message]) -> dict[str, Any]:
        """Arguments of the chat template; those of `template` win over those of the model. If the last
        turn is the assistant's, the answer continues that turn."""
        arguments = {**self._model.template, **template, "add_generation_prompt": True}
        if turns and turns[-1]["role"] == "assistant":
            arguments |= {"add_generation_prompt": False, "continue_final_message": True}
        return arguments

    def sampling_arguments(self, sampling: Sampling) -> dict[str, Any]:
        """Keyword arguments of `vllm.SamplingParams` that are about reasoning."""
        arguments: dict[str, Any] = {"max_tokens": sampling.most_tokens}
        if self._families:
            if sampling.thinking_tokens is not None:
                arguments["thinking_token_budget"] = sampling.thinking_tokens
            if self._writes_control:
                arguments["skip_special_tokens"] = False
        return arguments

    @property
    def _writes_control(self) -> bool:
        """Whether vLLM has to write control tokens out, because they mark the model's reasoning."""
        marks = [mark for family in self._families for mark in family.marks]
        return any(token in mark for token in self._defuser.marks for mark in marks)

    def answer(self, tokenizer: Any, prompt: Any, sampling: Sampling) -> "Answer":
        """The reader of one answer.

        Args:
            tokenizer: vLLM's tokenizer of the model.
            prompt: the rendered prompt, which has `prompt_token_ids`.
            sampling: how the answer is sampled.
        """
        if not self._families:
            return Answer(Splitter(()), sampling, "")
        tokens = list(prompt["prompt_token_ids"])[-TAIL_TOKENS:]
        tail = tokenizer.decode(tokens, skip_special_tokens=False)
        hidden = self._defuser.marks if self._writes_control else ()
        is_open = self._families[0].opens(tail)
        splitter = Splitter(self._families, is_open=is_open, hidden=hidden)
        return Answer(splitter, sampling, f"\n{self._families[0].closing}\n")


class Answer:
    """Reads one answer: tells reasoning from text, and counts the answer's tokens.

    Args:
        splitter: tells the answer's reasoning from its text.
        sampling: how the answer is sampled.
        closing: the text that ends a thought by force.
    """

    def __init__(self, splitter: Splitter, sampling: Sampling, closing: str) -> None:
        self._splitter = splitter
        self._sampling = sampling
        self._limit = AnswerLimit(None if sampling.thinking_tokens is None else sampling.answer_tokens)
        self._written = 0
        self._closing = closing
        self._has_closed = False
        self.is_unanswered = False
        """Whether the model has ended its message within a bounded thought, or right behind it. The
        engine then has to ask for the answer with `second_call`."""

    def add(self, text: str, tokens: int, finish: FinishReason | None) -> Delta:
        """What vLLM's next output adds, with the tokens of the whole answer if it ends here.

        Args:
            text: the output's text.
            tokens: how many tokens the output has.
            finish: why vLLM ended its call; None if it has not. The delta also ends the answer, with
                `length`, once the answer has all of its tokens. It does not end an answer that is
                `is_unanswered`.
        """
        self._written += tokens
        shown, reasoning = self._splitter.feed(text)
        is_bounded = self._sampling.thinking_tokens is not None and not self._has_closed
        if finish == "stop" and is_bounded and self._splitter.is_thinking:
            self.is_unanswered = self._has_closed = True
            if not self._splitter.is_within_thought:  # vLLM has ended the thought
                self._closing = ""
            closed = self._splitter.feed(self._closing)
            return Delta(shown + closed[0], reasoning + closed[1])
        if finish is None and self._limit.is_reached(
            self._written, is_thinking=self._splitter.is_thinking
        ):
            finish = "length"
        if finish is not None:
            rest = self._splitter.end()
            shown, reasoning = shown + rest[0], reasoning + rest[1]
        written = self._written if finish else 0
        return Delta(shown, reasoning, finish_reason=finish, completion_tokens=written)

    def second_call(
        self, tokenizer: Any, tokens: Sequence[int], arguments: Mapping[str, Any]
    ) -> tuple[list[int], dict[str, Any]]:
        """The prompt and the arguments with which the model answers after its thought.

        Args:
            tokenizer: vLLM's tokenizer of the model.
            tokens: the prompt, and what the model has written of its thought.
            arguments: the first call's arguments of `vllm.SamplingParams`.
        """
        mark = tokenizer.encode(self._closing, add_special_tokens=False) if self._closing else []
        self.is_unanswered = False
        self._written += len(mark)
        self._limit.is_reached(self._written, is_thinking=True)
        most = self._sampling.answer_tokens
        least = min(max(1, arguments.get("min_tokens", 0)), most)  # the message must not end at once
        answer = {"thinking_token_budget": None, "max_tokens": most, "min_tokens": least}
        return [*tokens, *mark], {**arguments, **answer}


def _special(tokenizer: Any) -> Iterable[Any]:
    """The control tokens that a tokenizer of Hugging Face names."""
    yield from getattr(tokenizer, "all_special_tokens", None) or ()
    for token in (getattr(tokenizer, "added_tokens_decoder", None) or {}).values():
        if getattr(token, "special", False):
            yield token
