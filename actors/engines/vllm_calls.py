"""The calls that vLLM gets: prompts through the chat template, outputs, and our errors for vLLM's."""

import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from actors.engine import NONE, FinishReason, Message
from actors.engines.vllm_arguments import sampling_arguments
from actors.engines.vllm_chat import FORM, Answer
from actors.engines.vllm_library import (
    ChatParams,
    EngineDeadError,
    RequestOutputKind,
    SamplingParams,
    StructuredOutputsParams,
    VLLMValidationError,
)
from actors.engines.vllm_runner import Runner
from actors.engines.vllm_text import token_ends
from actors.text.turns import TakenForm, refusal
from configs.errors import BadRequest, ContextTooLong, EngineError, EngineUnavailable
from configs.schema import Sampling

CALL, WARM_UP = 0, 1
"""vLLM's priorities of a call and of a warm-up."""


class Calls:
    """The calls of one model.

    Args:
        name: the model's name, for errors.
        runner: vLLM with the model.
    """

    def __init__(self, name: str, runner: Runner) -> None:
        self._name = name
        self._runner = runner
        self._taken = TakenForm()
        self.in_flight: set[str] = set()
        """vLLM's names of the calls that it works on."""

    async def render(self, messages: Sequence[Message], template: Mapping[str, Any] = NONE) -> Any:
        """Apply the chat template and tokenize; return the prompt as the model reads it."""
        llm, chat = self._runner.alive(), self._runner.chat

        async def render(taken: Sequence[Message]) -> Any:
            params = ChatParams(chat_template_kwargs=chat.arguments(template, taken))
            try:
                _, (prompt,) = await llm.renderer.render_chat_async([list(taken)], params)
            except (VLLMValidationError, ValueError) as error:
                raise self._unrendered(error) from error
            return prompt

        return await self._taken.run(chat.harmless(messages), render)

    def _unrendered(self, error: Exception) -> BadRequest:
        """The error of a prompt that vLLM could not make.

        1. vLLM names a parameter: the prompt is too long, or the parameter is wrong.
        2. Otherwise the chat template has refused the conversation. vLLM 0.26 raises ValueError then,
           and vLLM 0.32 VLLMValidationError (vllm/renderers/hf.py, `safe_apply_chat_template`).
        """
        if getattr(error, "parameter", None) is not None:  # 1
            return self._refusal(error)
        return refusal(str(error), self._name)  # 2

    async def token_ends(
        self, prompt: str | Sequence[Message], template: Mapping[str, Any] = NONE
    ) -> list[int]:
        """See `Engine.token_ends`."""
        tokenizer, chat = self._runner.alive().get_tokenizer(), self._runner.chat
        if isinstance(prompt, str):
            return token_ends(tokenizer, chat.defuse(prompt))
        # `render` refuses prompts that are too long, but this method has to count them.

        async def render(taken: Sequence[Message]) -> Any:
            arguments = chat.arguments(template, taken)
            try:
                return tokenizer.apply_chat_template(list(taken), tokenize=False, **arguments)
            except Exception as error:  # the template raises what it likes
                raise refusal(str(error), self._name) from error

        return token_ends(tokenizer, await self._taken.run(chat.harmless(prompt), render))

    def arguments(self, sampling: Sampling) -> dict[str, Any]:
        """Keyword arguments of `vllm.SamplingParams` for a call that is sampled so."""
        arguments: dict[str, Any] = sampling_arguments(sampling)
        arguments |= self._runner.chat.sampling_arguments(sampling)
        return arguments

    async def of_answer(
        self, answer: Answer, prompt: Any, arguments: dict[str, Any], adapter: str | None
    ) -> AsyncGenerator[Any, None]:
        """Yield vLLM's outputs of one answer, which may take a second call (`AnswerReader`).

        Args:
            answer: reads the answer meanwhile, and says whether a second call is needed.
            prompt: the rendered prompt.
            arguments: keyword arguments of `vllm.SamplingParams`.
            adapter: the adapter that answers; None for the model itself.
        """
        streamed = {"output_kind": RequestOutputKind.DELTA, "skip_clone": True}
        asked = answer.first_call(arguments)
        for _ in range(2):
            async with aclosing(self.outputs(prompt, asked | streamed, adapter)) as outputs:
                async for output in outputs:
                    yield output
                    if answer.is_unanswered:
                        break
            if not answer.is_unanswered:
                return
            tokens, asked = answer.second_call(self._runner.alive().get_tokenizer(), arguments)
            prompt = {**prompt, "prompt_token_ids": tokens}

    async def outputs(
        self,
        prompt: Any,
        arguments: dict[str, Any],
        adapter: str | None = None,
        priority: int = CALL,
    ) -> AsyncGenerator[Any, None]:
        """Yield vLLM's outputs of one call and raise our errors for vLLM's. Closing aborts the call.

        Args:
            priority: vLLM takes calls with a lower number first.
        """
        llm = self._runner.alive()
        if (form := arguments.get(FORM)) is not None:
            arguments = arguments | {FORM: StructuredOutputsParams(**form)}
        call = uuid.uuid4().hex
        self.in_flight.add(call)
        request = self._runner.adapters[adapter] if adapter else None
        outputs = llm.generate(
            prompt, SamplingParams(**arguments), call, lora_request=request, priority=priority
        )
        try:
            async for output in outputs:
                yield output
        except EngineDeadError as error:
            raise self._runner.broken("vLLM's engine process died") from error
        except (VLLMValidationError, ValueError) as error:
            raise self._refusal(error) from error
        except Exception as error:  # vLLM has its own errors; only this call has failed
            raise EngineError(f"vLLM: {error}", model=self._name) from error
        finally:
            self.in_flight.discard(call)
            await outputs.aclose()

    def _refusal(self, error: Exception) -> BadRequest:
        if getattr(error, "parameter", None) in ("input_tokens", "input_text"):
            return ContextTooLong(str(error.args[0]), model=self._name, param="messages")
        return BadRequest(f"vLLM: {error}", model=self._name, param="messages")

    def finish(self, reason: str | None) -> FinishReason | None:
        """Why an answer ended, in our words.

        Raises:
            EngineUnavailable: vLLM was stopped.
            EngineError: vLLM failed on this call.
        """
        if reason == "abort":
            raise EngineUnavailable("vLLM was stopped", model=self._name)
        if reason == "error":
            raise EngineError("vLLM failed on this call; its log has the cause", model=self._name)
        return None if reason is None else "length" if reason == "length" else "stop"


def written_tokens(part: Any) -> list[int]:
    """The token ids of an output that are text: all but the token that ends the model's message."""
    ended = part.finish_reason == "stop" and not isinstance(part.stop_reason, str)
    return list(part.token_ids[:-1] if ended else part.token_ids)
