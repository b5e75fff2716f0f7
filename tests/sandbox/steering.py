"""The common parts of the control endpoints under ``/_sandbox/``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from .messages import describe

Answer = Callable[[Request], Awaitable[Any]]
"""Returns the JSON of the answer; LookupError is answered with 404, ValueError with 400."""


def route(method: str, path: str, answer: Answer) -> Route:
    return Route(f"/_sandbox/{path}", _json(answer), methods=[method])


def _json(answer: Answer) -> Callable[[Request], Awaitable[JSONResponse]]:
    async def endpoint(request: Request) -> JSONResponse:
        try:
            return JSONResponse(await answer(request))
        except ValidationError as error:
            return JSONResponse({"error": describe(error)}, 400)
        except LookupError as error:
            return JSONResponse({"error": str(error)}, 404)
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)

    return endpoint
