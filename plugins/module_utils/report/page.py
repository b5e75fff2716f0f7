# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as one HTML file that makes no request.

The report's data is embedded as JSON; the script shows it as text only. The page's Content-Security-Policy allows
exactly the two scripts and the style sheet, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FILES = Path(__file__).with_name("page_files")
# In the order in which they use each other; joined into one script.
_SCRIPTS = ("basics.js", "charts.js", "environments.js", "page.js")
# A text with these characters could close its element, or open another.
_ESCAPES = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})


def render_page(data: Mapping[str, Any]) -> str:
    """The page that shows the JSON values of a report."""
    # Chart.js ends with a link to a source map that is not shipped.
    library, _comment, _map = _read_file("chart.js/chart.umd.min.js").rpartition("//# sourceMappingURL=")
    script, style = "".join(map(_read_file, _SCRIPTS)), _read_file("page.css")
    policy = (
        f"default-src 'none'; script-src {_hash_source(library)} {_hash_source(script)}; "
        f"style-src {_hash_source(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    embedded = json.dumps(data, ensure_ascii=False, separators=(",", ":")).translate(_ESCAPES)
    return string.Template(_read_file("page.html")).substitute(
        policy=policy, style=style, library=library, script=script, data=embedded
    )


def _read_file(name: str) -> str:
    return (_FILES / name).read_text(encoding="utf-8")


def _hash_source(text: str) -> str:
    """The source of an inline element, as a Content-Security-Policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
