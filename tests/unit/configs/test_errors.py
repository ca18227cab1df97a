"""The tree of request errors: each class survives pickling, and the docstring shows each."""

import inspect
import pickle
from typing import Any

import pytest
from ray import cloudpickle
from ray.exceptions import RayTaskError

from configs import errors
from configs.errors import ContextTooLong, EngineError, RequestError, UnknownModel

TREE = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, RequestError)]


@pytest.mark.parametrize("library", [pickle, cloudpickle], ids=["pickle", "cloudpickle"])
@pytest.mark.parametrize("cls", TREE)
def test_every_error_survives_the_way_between_processes(cls: type[RequestError], library: Any) -> None:
    sent = cls("what went wrong", model="small", param="messages")
    came = library.loads(library.dumps(sent))
    assert type(came) is cls
    assert (came.message, came.model, came.param) == ("what went wrong", "small", "messages")


def test_ray_hands_the_error_over_whole_as_the_cause_of_its_own() -> None:
    make: Any = RayTaskError
    sent = make("stream", "the whole traceback", ContextTooLong("2 over", model="small"))
    came = pickle.loads(pickle.dumps(sent)).as_instanceof_cause()
    assert isinstance(came, ContextTooLong)
    assert isinstance(came, RayTaskError)
    assert (came.cause.message, came.cause.model) == ("2 over", "small")


@pytest.mark.parametrize("cls", TREE)
def test_the_docstring_shows_every_class_with_its_status(cls: type[RequestError]) -> None:
    line = next(line for line in (errors.__doc__ or "").splitlines() if f" {cls.__name__} " in line)
    if cls is not RequestError:
        assert f" {cls.status} " in line


def test_a_message_is_the_text_alone() -> None:
    assert EngineError("it broke").message == str(EngineError("it broke")) == "it broke"
    assert EngineError("it broke").model is None


def test_codes_tell_the_errors_apart() -> None:
    assert len({cls.code for cls in TREE}) == len(TREE)
    assert UnknownModel.kind == "invalid_request_error"
