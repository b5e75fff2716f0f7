"""The turns that a test gives an agent.

sandbox.script("agent-1", ReplyTurn(text="It is {content}"), LongTurn(seconds=30), ErrorTurn(message="no credit"))
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field


class _Turn(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ReplyTurn(_Turn):
    """Answer at once. ``{content}`` in the text stands for the user's text."""

    kind: Literal["reply"] = "reply"
    text: str = "Done."


class ErrorTurn(_Turn):
    """Fail at once: the run ends as failed, with the stop reason error."""

    kind: Literal["error"] = "error"
    message: str = "The model is not available"
    retryable: bool = False
    """Let a real device try once more, with a user message that has another otid."""

    @property
    def error_type(self) -> str:
        return "llm_error" if self.retryable else "llm_bad_request"


class ApprovalTurn(_Turn):
    """Ask for a tool call and wait; one text is the answer after approval, the other one after denial."""

    kind: Literal["approval"] = "approval"
    tool_name: str = "Bash"
    arguments: dict[str, Any] = Field(default_factory=lambda: {"command": "true"})
    text: str = "Done."
    denied_text: str = "Then not."


class LongTurn(_Turn):
    """Answer after this many seconds, unless the run is cancelled before."""

    kind: Literal["long"] = "long"
    seconds: float = Field(strict=False, ge=0)
    text: str = "Done."


class GiveUpTurn(_Turn):
    """Never reach the agent: a simulated device tries for some seconds, and drops the message.

    Real devices do so where the conversation stays busy with another device's turn.
    """

    kind: Literal["give_up"] = "give_up"
    seconds: float = Field(default=0.0, strict=False, ge=0)
    message: str = "Turn still running"
    """What the device tells those who listen at that moment."""


Turn = ReplyTurn | ErrorTurn | ApprovalTurn | LongTurn | GiveUpTurn


class Script(_Turn):
    """The body of ``POST /_sandbox/agents/{id}/script``."""

    turns: list[Annotated[Turn, Discriminator("kind")]] = []
    then: Annotated[Turn, Discriminator("kind")] | None = None
    """The turn when no other is left, instead of the reply "Done."."""
