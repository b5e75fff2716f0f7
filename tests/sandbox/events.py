"""A run as the server-sent events that a device reads."""

from __future__ import annotations

import json
import uuid

from .conversations import Run, iso
from .fleet import Row

USAGE = {"completion_tokens": 1, "prompt_tokens": 1, "total_tokens": 2, "step_count": 1}


def event(row: Row) -> bytes:
    return f"data: {json.dumps(row)}\n\n".encode()


def ping(run: Run) -> bytes:
    return event({"id": f"ping-{uuid.uuid4()}", "date": iso(run.created), "message_type": "ping", "run_id": run.id})


def ending(run: Run) -> bytes:
    """Return what follows the last message: the stop reason, an error if there was one, and the end mark."""
    stop = event({"message_type": "stop_reason", "stop_reason": run.stop_reason, "run_id": run.id})
    usage = event({"message_type": "usage_statistics", **USAGE, "run_ids": [run.id]})
    if run.error:
        stop = event({"message_type": "error_message", "run_id": run.id, **run.error}) + stop
    return stop + usage + b"data: [DONE]\n\n"
