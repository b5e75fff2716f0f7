# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The URL of a ledger in PostgreSQL: read as libpq reads it, and shown without user and password."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field

from ..errors import OptionError

# Any URL is meant for a database: its password is not to become a part of a path.
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_WRONG = (
    "is no URL that PostgreSQL knows: {}; write it as postgresql://USER:PASSWORD@HOST:PORT/DATABASE, and "
    "percent-encode special characters of user and password"
)


@dataclass(frozen=True, slots=True)
class PostgresqlUrl:
    """A database. Its text as `str` has at most hosts, ports and the name of the database.

    text: the whole URL, which no output may have.
    """

    text: str = field(repr=False)

    def __str__(self) -> str:
        rest, _mark, parameters = _SCHEME.sub("", self.text, count=1).partition("?")
        # An @ after a ? is of a parameter, or of a password that is not encoded.
        return "postgresql://" + ("..." if "@" in parameters else rest.rpartition("@")[2])

    def read(self) -> dict[str, str]:
        """The connection parameters of libpq. Raises OptionError, also where psycopg is missing."""
        if not self.text.startswith(("postgresql://", "postgres://")):
            raise OptionError("ledger", _WRONG.format("it begins with another word"))
        try:
            # Imported here: it is optional, and takes a tenth of a second.
            from psycopg import ProgrammingError  # noqa: PLC0415
            from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415
        except ImportError as error:
            raise OptionError(
                "ledger",
                f"a postgresql:// URL needs psycopg, which cannot be imported ({error}); install it with pip install "
                "'psycopg[binary]>=3.1' (requirements-postgresql.txt of the collection)",
            ) from None
        try:
            given = {name: str(value) for name, value in conninfo_to_dict(self.text).items()}
        except ProgrammingError as error:
            # What libpq quotes may be a part of the password.
            raise OptionError("ledger", _WRONG.format(str(error).partition('"')[0].strip(" :\n"))) from None
        for port in given.get("port", "").split(","):
            if port and not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
                raise OptionError("ledger", _WRONG.format("the port is not a number from 1 to 65535"))
        return given


def find_url(ledger: object) -> PostgresqlUrl | None:
    """The URL that an option says, None if that is a path."""
    text = str(ledger or "").strip()
    return PostgresqlUrl(_SCHEME.sub(lambda scheme: scheme[0].lower(), text, 1)) if _SCHEME.match(text) else None


def find_secrets(ledger: object) -> set[str]:
    """What no output of a task may have of the value of an option: a URL, and the password in it."""
    if (url := find_url(ledger)) is None:
        return set()
    secrets = {str(ledger), url.text}
    with contextlib.suppress(OptionError):
        secrets.add(url.read().get("password", ""))
    return secrets - {""}
