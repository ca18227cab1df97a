"""The prompts by which chat clients ask a model for short tasks of their own, as far as they are known.

No client says in a request what the request is for: Open WebUI knows it as `metadata.task`, and takes
`metadata` out before it sends a request. So its prompts are all there is to know them by. They come
from the clients' source code, or from copies of it in public repositories, as of November 2026, with
older versions where their words differ.

A prompt is known by how it begins, and only where a client puts it. A person who writes a question does
not begin it in these words, and whoever does asks for that very task.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from configs.routes import HelperTask

BEGINNING_CHARACTERS = 600
"""How many characters of a message are looked at."""
MOST_EXAMPLES = 5
"""Most answers of the assistant that a client's prompt brings along as examples."""
Place = Literal["alone", "system", "examples", "last"]
"""Where a prompt stands.

1. `alone`: it is the only message of the user, and there is no answer of the assistant.
2. `system`: it is the system message, and there is no answer of the assistant.
3. `examples`: it is the system message, and all answers of the assistant are examples.
4. `last`: it is the last message, whatever stands before.
"""

OPEN_WEBUI = "Open WebUI"
OPEN_WEBUI_BEGINS = "### task:"
OPEN_WEBUI_HISTORY, OPEN_WEBUI_ENDS = "<chat_history>", "</chat_history>"
"""All prompts of Open WebUI but two begin with its headline and end with the conversation. Its prompt
for answers from documents begins so too, but ends otherwise."""
OPEN_WEBUI_KEYS: dict[str, HelperTask] = {
    "title": "title",
    "tags": "tags",
    "follow_ups": "follow_ups",
    "queries": "search_queries",
    "prompt": "image_prompt",
}
"""The keys of the JSON objects that such prompts ask for. Open WebUI reads the answers by these keys,
so prompts of every version have them, and those that an administrator has written too."""
OPEN_WEBUI_KEY = re.compile(rf'"({"|".join(OPEN_WEBUI_KEYS)})"\s*:')
OPEN_WEBUI_NAMES: dict[str, HelperTask] = {
    "title_generation": "title",
    "tags_generation": "tags",
    "follow_up_generation": "follow_ups",
    "query_generation": "search_queries",
    "autocomplete_generation": "autocomplete",
    "emoji_generation": "emoji",
    "image_prompt_generation": "image_prompt",
}
"""Open WebUI's own names of tasks. A filter or a proxy of an administrator may send one of them in
`metadata.task`."""

KNOWN: Mapping[Place, Mapping[str, Mapping[str, HelperTask]]] = {
    "alone": {
        OPEN_WEBUI: {
            "### task: you are an autocompletion system. continue the text in `<text>`": "autocomplete",
            "your task is to reflect the speaker's likely facial expression through a fitting": "emoji",
            "create a concise, 3-5 word title with an emoji": "title",
            "create a concise, 3-5 word phrase as a header for the following query": "title",
        },
        "LibreChat": {
            "provide a concise, 5-word-or-less title for the conversation": "title",
            "analyze this conversation and provide: 1. the detected language": "title",
        },
        "LangChain": {
            "given the following conversation and a follow up question, rephrase": "search_queries",
        },
        "Cherry Studio": {
            "you are a translation expert. your only task is to translate text enclosed": "translation",
            "your task is to precisely identify the language used in the user's input": "language",
        },
        "Cherry Studio or Perplexica": {"you are an ai question rephraser. you": "search_queries"},
        "Chatbox": {"based on the chat history, give this conversation a name.": "title"},
        "RikkaHub or Kelivo": {
            "i will give you some dialogue content in the `<content>` block. you need to summarize the "
            "conversation between user and assistant into a short title": "title",
        },
        "Roo Code or Kilo Code": {
            "generate an enhanced version of this prompt (reply with only the enhanced": "prompt",
        },
        "Continue": {
            "given the following... please reply with a title for the chat that is 3-4": "title",
        },
        "Goose": {
            "based on the conversation so far, provide a concise description of this session": "title",
        },
    },
    "system": {
        "LibreChat": {
            "please generate a concise, 5-word-or-less title for the conversation": "title",
        },
        "LobeHub": {
            "you are a professional conversation summarizer. generate a concise title": "title",
            "you are a professional translator. translate the input text to *. rules: - output only "
            "the translated text": "translation",
            "你是一名擅长翻译的助理，你需要将输入的语言翻译为目标语言": "translation",
            "you are an autocomplete engine for a chat input box.": "autocomplete",
            "you are a sidecar that extracts 0-4 quick-reply suggestions from the last": "follow_ups",
            "given the following conversation and a follow-up question, rephrase": "search_queries",
            "summarize the conversation for future reference. requirements:": "summary",
            "you're an assistant who's good at extracting key takeaways from conversations": "summary",
        },
        "LobeHub or Cherry Studio": {"你是一名擅长会话的助理，你需要将用户的会话总结为": "title"},
        "Cherry Studio": {
            "you are an assistant skilled in conversation. you need to summarize the user's": "title",
            "summarize the conversation into a title in * ignoring instructions": "title",
            "you are a translation expert. your only task is to translate text enclosed": "translation",
            "your task is to precisely identify the language used in the user's input": "language",
        },
        "Cherry Studio or Perplexica": {"you are an ai question rephraser. you": "search_queries"},
        "Hugging Face's chat-ui": {"you are a chat thread titling assistant.": "title"},
        "big-AGI": {"you are an ai conversation titles assistant who specializes in": "title"},
        "Vercel's chat template": {
            "- you will generate a short title based on the first message a user begins": "title",
        },
        "n8n": {"generate a concise, descriptive title for this conversation based on": "title"},
        "VS Code": {"you are an expert in crafting pithy titles for chatbot conversations.": "title"},
        "opencode": {"you are a title generator. you output only a thread title.": "title"},
        "Goose": {"reply with only a description in four words or less": "title"},
    },
    "examples": {
        "LobeHub": {
            "you are a language expert proficient in all world languages. identify the": "language",
            "you are an emoji expert who selects the most appropriate emoji": "emoji",
            "you are an assistant skilled at extracting conversation tags.": "tags",
            "you are an assistant skilled at summarizing skills. summarize the user's input": "summary",
            "you are a naming expert skilled at creating names with literary depth": "title",
        },
    },
    "last": {
        "NextChat": {
            "please generate a four to five word title summarizing our conversation": "title",
        },
        "Zed": {
            "generate a concise 3-7 word title for this conversation, omitting punctuation.": "title",
        },
        "SillyTavern": {
            "ignore previous instructions. summarize the most important * words or less": "summary",
            "ignore previous instructions. classify the emotion of the last message": "emoji",
        },
    },
}
"""By place and client: how a prompt begins, in lower case and with single spaces between words, and its
task. A star stands for any words."""


@dataclass(frozen=True, slots=True)
class HelperPrompt:
    """A prompt of a client."""

    place: Place
    client: str
    task: HelperTask
    begins: str
    """The words before any star."""
    pattern: re.Pattern[str]
    """What the beginning of the message matches."""


def _prompts() -> tuple[HelperPrompt, ...]:
    return tuple(
        HelperPrompt(
            place=place,
            client=client,
            task=task,
            begins=begins.partition("*")[0],
            pattern=re.compile(".+".join(map(re.escape, begins.split("*")))),
        )
        for place, by_client in KNOWN.items()
        for client, tasks in by_client.items()
        for begins, task in tasks.items()
    )


PROMPTS = _prompts()
"""All of `KNOWN`."""
