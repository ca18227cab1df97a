"""Makes the headers of calls to a server. Their secrets come from the environment, and no message shows
them."""

import os

from configs.errors import EngineUnavailable
from configs.remote_call import VARIABLE, is_header_value
from configs.schema import OpenAIHttpModel


class Secrets:
    """The secrets of one model's calls.

    Args:
        name: the model's name.
        model: the model's settings, which name environment variables.
    """

    def __init__(self, name: str, model: OpenAIHttpModel) -> None:
        self._name = name
        self._model = model
        self._values: list[str] = []

    def headers(self) -> dict[str, str]:
        """The headers of all calls.

        Raises:
            EngineUnavailable: an environment variable is not set, or no header may have its value.
        """
        self._values = []
        headers = {name: self._expanded(name, value) for name, value in self._model.headers.items()}
        if variable := self._model.api_key_env:
            headers["Authorization"] = f"Bearer {self._value(variable, 'api_key_env')}"
        return headers

    def masked(self, text: str) -> str:
        """The text without the secrets in it."""
        for value in self._values:
            text = text.replace(value, "***")
        return text

    def _expanded(self, name: str, value: str) -> str:
        """The value of a header, with the environment's values in it."""
        return VARIABLE.sub(lambda found: self._value(found[1], f"headers.{name}"), value)

    def _value(self, variable: str, where: str) -> str:
        value = os.environ.get(variable, "").strip()
        if not value:
            message = f"environment variable {variable} ({where}) is not set"
            raise EngineUnavailable(message, model=self._name)
        if not is_header_value(value):
            message = f"environment variable {variable} ({where}) holds what no header may hold"
            raise EngineUnavailable(message, model=self._name)
        self._values.append(value)
        return value
