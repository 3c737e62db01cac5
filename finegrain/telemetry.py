"""Turns off what dependencies report about a machine and its user.

ONNX Runtime, from 1.29 on, writes a device id and a database of events below the home folder and
sends them away as soon as it is imported; Ray reports usage, and Hugging Face's hub adds telemetry
to its requests. Photographs of people are searched here, so nothing of the kind happens unless the
user asks for it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

SWITCHES: Mapping[str, str] = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Environment variables that the dependencies read when they are imported."""


def turn_off() -> None:
    """Set every switch that the user has not set; call this before a dependency is imported."""
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
