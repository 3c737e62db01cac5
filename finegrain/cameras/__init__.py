"""Watches cameras: reads streams, detects and tracks people, and keeps the best crops of each."""
