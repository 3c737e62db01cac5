"""JSON for a terminal."""

from __future__ import annotations

import json
import re
import sys
from typing import Any


def printable_json(value: Any) -> str:
    """JSON in which characters that control a terminal, or that stdout cannot encode, are escaped.

    File names may hold any character, and bytes that are not valid Unicode.
    """
    is_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    text = json.dumps(value, indent=1, ensure_ascii=not is_unicode)
    return re.sub(
        r"[^ -~\n]", lambda match: match[0] if match[0].isprintable() else _escape(match[0]), text
    )


def _escape(character: str) -> str:
    return f"\\u{ord(character):04x}" if character <= "\x7f" else json.dumps(character)[1:-1]
