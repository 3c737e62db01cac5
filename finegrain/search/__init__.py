"""Adds pictures to a gallery and searches them by text or by picture."""
