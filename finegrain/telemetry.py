"""Turns off the telemetry of dependencies.

ONNX Runtime from 1.29 on writes a device id and a database of events below the home folder, and
sends them when it is imported. Ray reports usage, and the Hugging Face hub adds telemetry to its
requests. finegrain processes photographs of people, so it turns all of them off unless the user
sets the variables.
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
    """Set every variable that the user has not set. Call this before a dependency is imported."""
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
