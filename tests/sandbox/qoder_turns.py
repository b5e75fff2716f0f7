"""The turns that a test gives a Qoder agent.

sandbox.qoder.script("agent_1", "It is {content}", QoderTurn(ends="requires_action", polls=2))

A message can ask for its turn, with a line such as ``sandbox: cancelled polls=2``.
"""

from __future__ import annotations

import re
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Ending = Literal["end_turn", "requires_action", "cancelled", "error", "terminated", "deleted"]

SAYS = re.compile(rf"^sandbox: (?P<ends>{'|'.join(get_args(Ending))})(?: polls=(?P<polls>\d+))?$", re.MULTILINE)


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class QoderTurn(_Shape):
    ends: Ending = "end_turn"
    """error: session.error; terminated: session.status_terminated; deleted: session.deleted; else a stop reason."""
    texts: list[str] = ["Done."]
    """The agent's first messages, each in its own event. ``{content}`` stands for the user's text."""
    polls: int = Field(default=0, ge=0)
    """How often a client finds the session busy: it reads the session or its events, or is refused."""
    message: str = "The model is not available"
    """error: the message of session.error."""
    tool_name: str = "Bash"
    """requires_action: the tool call that the agent asks for."""
    arguments: dict[str, Any] = Field(default_factory=lambda: {"command": "true"})


class QoderScript(_Shape):
    """The body of ``POST /_sandbox/qoder/agents/{id}/script``."""

    turns: list[QoderTurn] = []
    then: QoderTurn | None = None
    """The turn when no other is left, instead of the reply "Done."."""


def asked_for(content: str) -> QoderTurn | None:
    """Return the turn that a message asks for."""
    found = SAYS.search(content)
    if found is None:
        return None
    return QoderTurn.model_validate({"ends": found["ends"], "polls": int(found["polls"] or 0)})
