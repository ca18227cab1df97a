"""The tools (functions) that a model may call in its answer, and how it may call them."""

from typing import Annotated, Any, Literal

from pydantic import Field

from configs.base import Strict, meant

NAME = meant(r"^[A-Za-z0-9_.:-]{1,128}$", "1 to 128 letters, digits and the signs _ . : -")
"""Names of functions: all that OpenAI allows, and a little more."""


class Tool(Strict):
    """A function of the client that the model may call. The client runs it, never this program."""

    name: Annotated[str, Field(pattern=NAME)]
    """Name of the function."""
    description: Annotated[str, Field(max_length=65_536)] = ""
    """What the function does, for the model."""
    parameters: dict[str, Any] = Field({})
    """JSON schema of the function's arguments. An empty schema says that the function has none."""

    @property
    def schema_of_arguments(self) -> dict[str, Any]:
        """JSON schema of the arguments, which are always an object."""
        return self.parameters or {"type": "object", "properties": {}, "additionalProperties": False}


class ToolUse(Strict):
    """The tools of one call of a model."""

    tools: Annotated[list[Tool], Field(min_length=1, max_length=128)]
    """The functions that the model may call: only one if the request names one."""
    choice: Literal["auto", "required"] = "auto"
    """`auto`: the model decides whether it calls a tool. `required`: it has to call a tool."""
    parallel: bool = True
    """Whether one answer may have several calls."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tools."""
        return tuple(tool.name for tool in self.tools)
