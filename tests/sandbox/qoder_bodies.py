"""The bodies of Qoder's POST requests that the sandbox accepts, and nothing else.

Unknown keys and values of a neighbouring type are refused, so that a client cannot be sloppy unnoticed.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, ValidationError

from .api import Call
from .messages import describe
from .qoder_errors import refuse

Body = TypeVar("Body", bound=BaseModel)


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Agent(_Shape):
    id: str = Field(min_length=1)
    type: Literal["agent"]
    version: int | None = None


class NewSession(_Shape):
    agent: Annotated[str, Field(min_length=1)] | Agent
    environment_id: str
    title: str = ""
    metadata: dict[str, str] = {}

    def pinned(self) -> Agent:
        """Return the agent in the longer form."""
        return Agent(id=self.agent, type="agent") if isinstance(self.agent, str) else self.agent


class TextBlock(_Shape):
    type: Literal["text"]
    text: str


class UserMessage(_Shape):
    type: Literal["user.message"]
    content: list[TextBlock] = Field(min_length=1)

    @property
    def text(self) -> str:
        return "\n".join(block.text for block in self.content)


class ToolConfirmation(_Shape):
    type: Literal["user.tool_confirmation"]
    tool_use_id: str
    result: Literal["allow", "deny"]
    deny_message: str | None = None


class NewEvents(_Shape):
    events: list[Annotated[UserMessage | ToolConfirmation, Discriminator("type")]] = Field(min_length=1)


def parsed(call: Call, shape: type[Body]) -> Body:
    try:
        return shape.model_validate_json(call.body)
    except ValidationError as error:
        location = error.errors()[0]["loc"]
        raise refuse(400, describe(error), str(location[0]) if location else None) from None
