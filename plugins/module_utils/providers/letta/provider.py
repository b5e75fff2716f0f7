# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Letta, as the other parts see it."""

from __future__ import annotations

from ..base import Provider
from .client import Client, Query, find_agent
from .models import FIELDS, NAME, read_environments
from .replies import Conversations

PROVIDER = Provider(
    name=NAME,
    base_url="https://api.letta.com",
    fields=FIELDS,
    query=Query,
    client=Client,
    environments=lambda listing, base_url, query: read_environments(listing, base_url, online_only=query.online_only),
    conversations=Conversations,
    looked_up_by="device_id",
    called="connection_name",
    volatile={"last_heartbeat": "lastHeartbeat", "last_seen_at": "lastSeenAt", "listed_at": None},
    standing=True,
    find_agent=find_agent,
)
