"""The errors of Qoder's API."""

from __future__ import annotations

import uuid

from .api import ApiError, Reply

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}


def refuse(status: int, message: str, param: str | None = None) -> ApiError:
    return ApiError(status, TYPES[status], message, param)


def envelope(error: ApiError) -> Reply:
    """Return ``{type, request_id, error: {type, message, param?}}``; the type follows from the status."""
    said = {"type": TYPES.get(error.status, "api_error"), "message": error.message}
    if error.param is not None:
        said["param"] = error.param
    request_id = str(uuid.uuid4())
    body = {"type": "error", "request_id": request_id, "error": said}
    return Reply(error.status, body, headers={"x-request-id": request_id})
