"""The families of models by how they mark their reasoning. No other file knows these marks.

The marks were read in the families' chat templates and in vLLM 0.33 (`vllm/reasoning`).
"""

from dataclasses import dataclass

from configs.base import REASONING_FORMATS

QUOTES = "`'\""
"""A mark between two of these is only a mention, of which texts about reasoning models have many."""


@dataclass(frozen=True, slots=True)
class Family:
    """How the models of one family mark a thought."""

    name: str
    """The name in recipes (`reasoning_format`)."""
    begins: tuple[str, ...]
    """Marks that begin a thought. The first one is the usual one."""
    end: str
    """The mark that ends a thought."""
    close: str = ""
    """The text by which a thought is ended whose tokens are used up, so that the answer follows; by
    default `end`."""
    frame: tuple[str, ...] = ()
    """Marks that stand around the answer itself and are no part of it."""
    is_repeated: bool = False
    """Whether a thought may begin in the middle of the answer. That is so only where the marks are
    control tokens, which no text can contain by chance."""
    is_prose: bool = False
    """Whether the marks are sentences, which count only at the start of an answer."""

    @property
    def closing(self) -> str:
        """The text that ends a thought by force."""
        return self.close or self.end

    @property
    def marks(self) -> tuple[str, ...]:
        """All marks of the family."""
        return (*self.begins, self.end, *self.frame)

    def opens(self, prompt: str) -> bool:
        """Whether a prompt ends within a thought, because the chat template has begun the thought."""
        return any(prompt.rstrip().endswith(begin.rstrip()) for begin in self.begins)

    def closes(self, prompt: str) -> bool:
        """Whether a prompt ends behind a thought, because the chat template has left thinking out."""
        return prompt.rstrip().endswith((self.end, self.closing))


HARMONY_FINAL = "<|channel|>final<|message|>"
"""The header of the answer in gpt-oss's format."""
FAMILIES = (
    # Qwen3 and later, DeepSeek, GLM, SmolLM3, Nemotron, Granite 4, MiniMax, Kimi K2, LFM2.5, OLMo 3.
    Family("think", ("<think>",), "</think>"),
    Family("thinking", ("<thinking>",), "</thinking>"),
    Family("thought", ("<thought>",), "</thought>"),  # EXAONE Deep
    Family("seed", ("<seed:think>",), "</seed:think>"),
    Family("minimax_m3", ("<mm:think>",), "</mm:think>"),
    Family("kimi_vl", ("◁think▷",), "◁/think▷"),
    Family("mistral", ("[THINK]",), "[/THINK]"),  # Magistral, Ministral 3 Reasoning
    Family(
        "cohere",
        ("<|START_THINKING|>",),
        "<|END_THINKING|>",
        frame=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
    ),
    Family("apertus", ("<|inner_prefix|>",), "<|inner_suffix|>"),
    Family("gemma4", ("<|channel>thought", "<|channel>thought\n"), "<channel|>", is_repeated=True),
    Family(
        "harmony",  # gpt-oss. The model also writes the headers of its messages.
        ("<|channel|>analysis<|message|>", "<|channel|>commentary<|message|>"),
        "<|end|>",
        close=f"<|end|><|start|>assistant{HARMONY_FINAL}",
        frame=(f"<|start|>assistant{HARMONY_FINAL}", "<|start|>assistant", HARMONY_FINAL, "<|return|>"),
        is_repeated=True,
    ),
    Family(
        "solar",
        ("<|think|>",),
        "<|end|>",
        close="<|end|><|begin|>assistant<|content|>",
        frame=("<|begin|>assistant<|content|>", "<|begin|>assistant", "<|content|>"),
        is_repeated=True,
    ),
    Family("granite", ("Here is my thought process:",), "Here is my response:", is_prose=True),
    Family(
        "apriel",
        ("Here are my reasoning steps:",),
        "[BEGIN FINAL RESPONSE]",
        frame=("[END FINAL RESPONSE]",),
        is_prose=True,
    ),
)
"""All families that are known. Where the marks of two fit a chat template, the later one is taken."""
ANY = tuple(family for family in FAMILIES if not family.is_prose)
"""The families that count where nothing is known of a model. A sentence may begin any answer."""
BY_NAME = {family.name: family for family in FAMILIES}

if set(BY_NAME) != set(REASONING_FORMATS):
    raise AssertionError("configs/base.py has to name the same families")


def families_of(setting: str, template: str | None) -> tuple[Family, ...]:
    """The families whose marks a model may write.

    Args:
        setting: the model's `reasoning_format` in the recipe: `auto`, `none`, or a family's name.
        template: the model's chat template; None if it is unknown, as on a remote server. Then `auto`
            stands for all families in ANY.
    """
    if setting == "none":
        return ()
    if setting != "auto":
        return (BY_NAME[setting],)
    if template is None:
        return ANY
    fitting = [f for f in FAMILIES if f.end in template and any(b in template for b in f.begins)]
    if not fitting and HARMONY_FINAL.partition("final")[0] in template and "analysis" in template:
        fitting = [BY_NAME["harmony"]]  # its template joins the header from pieces
    return tuple(fitting[-1:])
