"""How an answer of an OpenAI-compatible server ended: a closed table of what servers send.

The words are those of OpenAI, Azure, vLLM (`vllm/v1/engine/__init__.py`), SGLang, TGI, llama.cpp,
Ollama, LM Studio, Mistral, DeepSeek, Gemini (`FinishReason`, which its OpenAI-compatible API passes on
in capitals), Anthropic, Bedrock, Cohere, Groq, Together, Fireworks, OpenRouter, Zhipu, DashScope and
watsonx. They are compared without case and without what is no letter, so `MAX_TOKENS`, `max-tokens` and
`maxTokens` are one word.
"""

import logging
import re
from functools import lru_cache
from typing import NamedTuple

from actors.engine import FinishReason

logger = logging.getLogger(__name__)


class Ending(NamedTuple):
    """How an answer ended: with a reason, or with a failure."""

    reason: FinishReason = "stop"
    status: int = 0
    """HTTP status that says the same as a failure; 0 if the answer is whole."""


STOP = Ending("stop")
LENGTH = Ending("length")
FILTERED = Ending("content_filter")
"""The server's filter ended the answer, or the model refused to answer."""

NOT_YET = frozenset(
    {"", "null", "none", "notfinished", "unspecified", "finishreasonunspecified", "inprogress"}
)
"""Words of chunks in the middle of an answer."""
_WORDS: dict[Ending, str] = {
    STOP: """
        stop stopped end ended eos eosfound eostoken eot eotoken endtoken endturn endoftext endofturn
        stopsequence stopsequencereached stopstring stopstringfound stoptoken stopword word finish
        finished complete completed done normal success userstopped
        toolcall toolcalls tooluse functioncall toolcallsrequired unexpectedtoolcall
        toomanytoolcalls malformedfunctioncall malformedtooluse functioncallfilter""",
    LENGTH: """
        length lengthreached limit maxlength maxlengthreached maxtokens maxtokensreached
        maxnewtokens maxoutputtokens maxpredictedtokensreached tokenlimit outputlimit modellength
        contextlength contextlengthreached contextlengthexceeded contextwindowexceeded
        modelcontextwindowexceeded errorlimit repetition pauseturn incomplete truncated""",
    FILTERED: """
        contentfilter contentfiltered contentfiltering filtered filter contentpolicy
        contentpolicyviolation safety recitation blocklist blocked prohibitedcontent spii
        imagesafety imageprohibitedcontent imagerecitation language guardrail guardrailintervened
        guardrails moderation sensitive errortoxic toxic policy policyviolation
        refusal refused modelrefusal""",
    Ending(status=500): """
        error errored internalerror servererror fail failed failure exception other imageother noimage
        malformedmodeloutput malformedresponse missingthoughtsignature load unload modelunloaded""",
    Ending(status=502): "networkerror connectionerror upstreamerror providererror disconnected",
    Ending(status=503): """
        abort aborted cancel canceled cancelled usercancel interrupted preempted shutdown terminated
        insufficientsystemresource overloaded unavailable""",
    Ending(status=504): "timeout timedout timelimit deadlineexceeded",
    Ending(status=429): "ratelimit ratelimited ratelimitexceeded",
}
TABLE = {word: ending for ending, words in _WORDS.items() for word in words.split()}
"""Endings by the words of servers, in small letters and without anything else."""
PARTS = (
    (re.compile(r"timeout|timedout"), Ending(status=504)),
    (re.compile(r"error|fail|exception"), Ending(status=500)),
    (re.compile(r"abort|cancel|interrupt"), Ending(status=503)),
    (re.compile(r"filter|safety|prohibit|block|policy|refus|moderat|guardrail"), FILTERED),
    (re.compile(r"length|limit|max|truncat"), LENGTH),
)
"""How a word that the table does not have is read, by what stands in it; the first match counts."""


@lru_cache(maxsize=256)
def read_ending(said: str) -> Ending | None:
    """The ending that a server's `finish_reason` says; None if the answer goes on.

    A reason with parts, such as Gemini's `content_filter: RECITATION`, is read by its first part that
    is in the table. An unknown reason is read by parts of the word, and otherwise counts as `stop`.
    """
    words = [re.sub(r"[^a-z]", "", part) for part in re.split(r"[:./|]", said[:200].lower())]
    words = [word.removeprefix("finishreason") or word for word in words]
    if all(word in NOT_YET for word in words):
        return None
    for word in words:
        if word in TABLE:
            return TABLE[word]
    whole = "".join(words)
    for pattern, ending in PARTS:
        if pattern.search(whole):
            return ending
    logger.warning("a server ended an answer with an unknown finish_reason: %.80r", said)
    return STOP
