"""The settings of the whole sandbox that a test can change."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from .qoder_pages import Generation


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    offline_status: Literal[404, 503] = 404
    """The status of a message to a missing connection: the docs allow both."""
    paired: bool = True
    """Whether real devices that register from now on are asked to open two sockets."""
    searches: bool = True
    """Whether the list calls of conversations and agents heed summary_search and name."""
    relay_ping: float = Field(default=30.0, strict=False, gt=0)
    """Seconds without a frame after which the relay sends a ping to a client."""

    qoder_generation: Generation = "new"
    """The generation of Qoder's API that answers."""

    def change(self, changes: dict[str, Any]) -> None:
        """Set these values, or none of them if one is invalid."""
        changed = self.model_validate({**self.model_dump(), **changes})
        for name in changes:
            setattr(self, name, getattr(changed, name))
