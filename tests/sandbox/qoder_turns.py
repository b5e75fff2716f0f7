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
    """What the agent says first, each in an event of its own. ``{content}`` stands for what the user said."""
    polls: int = Field(default=0, ge=0)
    """How often a client looks and finds the session busy: it reads the session or its events, or is refused."""
    message: str = "The model is not available"
    """error: what session.error says."""
    tool_name: str = "Bash"
    """requires_action: what the agent wants to do."""
    arguments: dict[str, Any] = Field(default_factory=lambda: {"command": "true"})


class QoderScript(_Shape):
    """The body of ``POST /_sandbox/qoder/agents/{id}/script``."""

    turns: list[QoderTurn] = []
    then: QoderTurn | None = None
    """What comes when no turn is left, instead of the reply "Done."."""


def asked_for(content: str) -> QoderTurn | None:
    """Return the turn that a message asks for."""
    found = SAYS.search(content)
    if found is None:
        return None
    return QoderTurn.model_validate({"ends": found["ends"], "polls": int(found["polls"] or 0)})
