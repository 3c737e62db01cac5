"""Counts the pixels that a decoder of AV1 computes, from the headers of the stream.

A coded picture may hold thousands of frames that are never shown, and each may be larger than the
container says.
"""

from __future__ import annotations

_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6

MAX_UNITS = 256
"""Maximum number of units of one picture; a usual one has three."""

_HEADER_BYTES = 256
"""A sequence header of 32 operating points, the maximum, is shorter."""


def num_decoded_pixels(data: memoryview) -> int | None:
    """Sum of the pixels of all frames; None if there are more than :data:`MAX_UNITS` units."""
    at = area = total = 0
    for _ in range(MAX_UNITS):
        if at >= len(data):
            return total
        flags = data[at]
        at += 2 if flags & 4 else 1
        size = len(data) - at
        if flags & 2:
            size, at = _leb128(data, at)
        kind = flags >> 3 & 15
        if kind == _SEQUENCE_HEADER:
            area = _frame_area(data[at : at + min(size, _HEADER_BYTES)])
        elif kind in (_FRAME_HEADER, _FRAME):
            total += area
        at += size
    return None


def _leb128(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for number, byte in enumerate(data[at : at + 8]):
        value |= (byte & 127) << 7 * number
        if byte < 128:
            return value, at + number + 1
    return value, at + 8


class _Bits:
    """Reads bits from the start; there are zeros behind the end."""

    def __init__(self, data: memoryview) -> None:
        self._value = int.from_bytes(data)
        self._left = 8 * len(data)

    def read(self, count: int) -> int:
        self._left -= count
        shifted = self._value >> self._left if self._left >= 0 else self._value << -self._left
        return shifted & ((1 << count) - 1)

    def skip_uvlc(self) -> None:
        """Skip a number that is preceded by as many zeros as it has bits."""
        zeros = 0
        while zeros < 32 and not self.read(1):
            zeros += 1
        self.read(zeros if zeros < 32 else 0)


def _frame_area(header: memoryview) -> int:
    """Maximum width times maximum height, according to section 5.5.1 of the AV1 specification."""
    bits = _Bits(header)
    bits.read(4)  # seq_profile, still_picture
    if bits.read(1):  # reduced_still_picture_header
        bits.read(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    return (bits.read(width_bits) + 1) * (bits.read(height_bits) + 1)


def _skip_operating_points(bits: _Bits) -> None:
    delay_bits = 0
    if bits.read(1):  # timing_info_present_flag
        bits.read(64)
        if bits.read(1):  # equal_picture_interval
            bits.skip_uvlc()
        if bits.read(1):  # decoder_model_info_present_flag
            delay_bits = bits.read(5) + 1
            bits.read(42)
    has_display_delay = bits.read(1)
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:  # seq_level_idx; higher levels have a tier
            bits.read(1)
        if delay_bits and bits.read(1):
            bits.read(2 * delay_bits + 1)
        if has_display_delay and bits.read(1):
            bits.read(4)
