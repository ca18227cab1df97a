"""The tools (functions) that a model may call in its answer, and how it may call them."""

from typing import Annotated, Any, Literal

from pydantic import Field

from configs.base import Strict, meant

NAME = meant(r"^[A-Za-z0-9_.:-]{1,128}$", "1 to 128 letters, digits and the signs _ . : -")
"""Names of functions: all that OpenAI allows, and a little more."""

MOST_TOOLS = 128
"""Most tools of a request, as OpenAI has it."""
LONGEST_DESCRIPTION = 65_536
"""Most characters of a tool's description."""


class Tool(Strict):
    """A function of the client that the model may call. The client runs it, never this program."""

    name: Annotated[str, Field(pattern=NAME)]
    """Name of the function."""
    description: Annotated[str, Field(max_length=LONGEST_DESCRIPTION)] = ""
    """What the function does, for the model."""
    parameters: dict[str, Any] = Field({})
    """JSON schema of the function's arguments. An empty schema says that the function has none."""
    strict: bool | None = None
    """OpenAI's `strict`, which only other servers are told: engines here always hold calls to their
    schemas."""

    @property
    def schema_of_arguments(self) -> dict[str, Any]:
        """JSON schema of the arguments, which are always an object."""
        if not self.parameters:
            return {"type": "object", "properties": {}, "additionalProperties": False}
        # A schema without a type would also allow a number or a text.
        return self.parameters | {"type": self.parameters.get("type") or "object"}


class ToolUse(Strict):
    """The tools of one call of a model."""

    tools: Annotated[list[Tool], Field(min_length=1, max_length=MOST_TOOLS)]
    """The functions that the model may call: only one if the request names one."""
    choice: Literal["auto", "required"] = "auto"
    """`auto`: the model decides whether it calls a tool. `required`: it has to call a tool."""
    parallel: bool = True
    """Whether one answer may have several calls."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tools."""
        return tuple(tool.name for tool in self.tools)
