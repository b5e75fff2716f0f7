"""The body of ``POST /v1/environments/{connectionId}/messages``, every shape of the API page and nothing else.

Unknown keys and values of a neighbouring type are refused, so that a client cannot be sloppy unnoticed. What the
official SDK types as nullable may be null; what is merely optional may not.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(_Shape):
    text: str
    type: Literal["text"]


class UserMessage(_Shape):
    client_message_id: str
    content: str | list[TextPart]
    role: Literal["user"]
    otid: str = ""


class ToolReturn(_Shape):
    status: Literal["success", "error"]
    tool_call_id: str
    tool_return: str | list[TextPart]
    stderr: list[str] | None = None
    stdout: list[str] | None = None
    type: Literal["tool"] = "tool"


class ApprovalDecision(_Shape):
    approve: bool
    tool_call_id: str
    reason: str | None = None
    type: Literal["approval"] = "approval"
    updated_input: dict[str, Any] | None = None


def _approval_kind(value: Any) -> str:
    return "decision" if isinstance(value, dict) and "approve" in value else "tool"


class ApprovalMessage(_Shape):
    approvals: list[
        Annotated[
            Annotated[ToolReturn, Tag("tool")] | Annotated[ApprovalDecision, Tag("decision")],
            Discriminator(_approval_kind),
        ]
    ]
    type: Literal["approval"]


def _message_kind(value: Any) -> str:
    return "approval" if isinstance(value, dict) and ("approvals" in value or "type" in value) else "user"


class SendMessageBody(_Shape):
    messages: list[
        Annotated[
            Annotated[UserMessage, Tag("user")] | Annotated[ApprovalMessage, Tag("approval")],
            Discriminator(_message_kind),
        ]
    ]
    agent_id: str = Field("", alias="agentId")
    conversation_id: str | None = Field(None, alias="conversationId")


def describe(error: ValidationError) -> str:
    """Return the first faults in one line: ``messages.0.user.role: Input should be 'user'``."""
    faults = [f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}" for fault in error.errors()]
    return "; ".join(faults[:3])
