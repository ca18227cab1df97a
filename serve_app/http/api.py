"""The OpenAI-compatible HTTP API: an ordinary FastAPI app that knows nothing of Ray."""

from collections.abc import Sequence
from importlib.resources.abc import Traversable
from typing import Protocol

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect

from configs.errors import RequestError
from configs.schema import Recipe
from serve_app.access.admission import AdmissionControl, admission_for
from serve_app.access.api_keys import Key
from serve_app.access.auth import METRICS, Authenticator, AuthMiddleware
from serve_app.error_response import DefectMiddleware
from serve_app.http.chat import ChatEndpoint
from serve_app.http.health import Health, ModelStats
from serve_app.http.metrics import MetricsEndpoint
from serve_app.http.openapi import DescribedApi
from serve_app.http.page_files import PageFiles, built_page
from serve_app.http.paths import Paths
from serve_app.http.refusals import Refusals, on_client_left
from serve_app.http.served_models import ServedModels
from serve_app.http.state import ServerState, StateEndpoint, Watch
from serve_app.metrics.server_metrics import ServerMetrics
from serve_app.mixture.models import Models
from serve_app.observe import Observer, Observers
from serve_app.recent import Recent

CORS_HEADERS = ("retry-after", "x-request-id", "x-slimmoa-degraded")
"""Response headers that browsers let web pages from `access.cors_origins` read, beside the headers that
every web page may read."""


class Backend(Models, ModelStats, Protocol):
    """The recipe's models, to call them and to ask whether they are up."""


def create_api(
    recipe: Recipe,
    backend: Backend,
    env_keys: Sequence[Key] = (),
    admission: AdmissionControl | None = None,
    watch: Watch | None = None,
    observers: Sequence[Observer] = (),
    page: Traversable | None = None,
    metrics: ServerMetrics | None = None,
) -> FastAPI:
    """The app that serves a recipe.

    Args:
        recipe: what to serve.
        backend: the recipe's models.
        env_keys: see `Authenticator`.
        admission: decides whether a request may begin; by default `admission_for(recipe)`.
        watch: asks the keepers of all cards for their reports; None where there are none.
        observers: learn what becomes of each request.
        page: the folder with the files of the page; by default the package's own. Without effect if the
            recipe turns the page off.
        metrics: the numbers of `/metrics`; by default those of this app alone, without those of models
            and cards. Where the recipe turns them off, they are not used.

    Raises:
        KeysError: the recipe's file of keys cannot be used.
    """
    authenticator = Authenticator(recipe.access, env_keys)
    served = ServedModels(recipe)
    recent = Recent(recipe)
    metrics = metrics or ServerMetrics(recipe)
    has_metrics = recipe.access.metrics != "off"
    observer = Observers([recent, *observers, *([metrics.observer] if has_metrics else [])])
    refusals = Refusals(observer)
    admission = admission or admission_for(recipe)
    chat = ChatEndpoint(recipe, backend, served, authenticator, admission, observer)
    health = Health(recipe, backend)

    shown = (page or built_page()) if recipe.access.page else None
    middleware = _middleware(authenticator, refusals, recipe.access.cors_origins, shown)
    api = DescribedApi(recipe, middleware)
    api.post("/v1/chat/completions")(chat.chat_completions)
    api.post("/v1/responses")(chat.responses)
    api.get("/v1/models")(served.list_models)
    api.get("/v1/models/{model:path}")(served.get_model)
    state = StateEndpoint(recipe, served, watch, backend, admission, authenticator, recent)
    api.get("/v1/state", response_model=ServerState)(state.state)
    if has_metrics:
        api.get(METRICS)(MetricsEndpoint(recipe.access, metrics).metrics)
    api.get("/healthz")(health.healthz)
    api.get("/readyz")(health.readyz)
    api.add_exception_handler(RequestError, refusals.on_request_error)
    api.add_exception_handler(HTTPException, refusals.on_http_error)
    api.add_exception_handler(ClientDisconnect, on_client_left)
    return api


def _middleware(
    authenticator: Authenticator,
    refusals: Refusals,
    origins: Sequence[str],
    page: Traversable | None,
) -> list[Middleware]:
    """The middleware that a request passes on its way to a route, in this order."""
    return [
        Middleware(DefectMiddleware),
        *([] if page is None else [Middleware(PageFiles, page)]),
        *_cors(origins),
        Middleware(AuthMiddleware, authenticator, refusals.tell),
        Middleware(Paths),
    ]


def _cors(origins: Sequence[str]) -> list[Middleware]:
    """The middleware that lets web pages of these origins call the API; empty without origins.

    A request passes this middleware before authentication, because browsers send a preflight request
    without any key. Credentials are not allowed: a browser sends cookies and the like by itself, but an
    API key is set by the page.
    """
    if not origins:
        return []
    cors = Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=CORS_HEADERS,
    )
    return [cors]
