"""Opens the stream, device or file of a camera with PyAV, and decodes its frames."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finegrain import times
from finegrain.cameras.camera import Camera
from finegrain.cameras.clock import Clock, ClockName, Stamp
from finegrain.errors import CameraError, require
from finegrain.preprocess.frames import upright
from finegrain.preprocess.large import MAX_PIXELS

OPEN_SECONDS, READ_SECONDS = 10.0, 10.0
"""How long to wait for a stream to open, and for its next packet."""

_MAX_DAMAGED = 100
"""Damaged packets in a row after which a stream is opened again."""

# A playlist or redirection from the network must not open local files.
_STREAM_OPTIONS = {
    "rtsp": {
        "protocol_whitelist": "rtsp,rtsps,rtp,udp,tcp,tls,crypto",
        "rtsp_flags": "prefer_tcp",
    },
    "http": {"protocol_whitelist": "http,https,httpproxy,tcp,tls,crypto"},
}
# FFmpeg makes up a rate for pictures that come one after another.
_WITHOUT_TIMES = ("mpjpeg", "mjpeg", "jpeg_pipe")
_FILE_OPTIONS = {"protocol_whitelist": "file"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """A frame of a camera.

    Attributes:
        time: When it was taken.
        seconds: Seconds since the first frame of the camera; it never decreases.
        clock: Where the time comes from.
        pixels: Upright RGB, uint8 ``[H, W, 3]``.
    """

    time: datetime
    seconds: float
    clock: ClockName
    pixels: NDArray[np.uint8]


class LostStreamError(CameraError):
    """A camera does not answer now; a later attempt may succeed."""


class Stream:
    """An open camera.

    Args:
        camera: The camera.
        hardware: Kind of device that decodes, such as ``cuda`` or ``vaapi``. The processor decodes
            what the device cannot.

    Raises:
        LostStreamError: The camera does not answer, or not with a video.
        CameraError: Another attempt would fail in the same way: the password is wrong, or the
            codec is unknown.
        MissingExtraError: PyAV is not installed.
    """

    def __init__(self, camera: Camera, *, hardware: str | None = None) -> None:
        self._av = require("av", "cameras")
        self._camera = camera
        with self._explained():
            self._container = self._open(hardware)
        try:
            self._video = self._video_stream()
        except CameraError:
            self._container.close()
            raise

    @property
    def start(self) -> datetime | None:
        """Time of the first frame of a file; None for a live source."""
        if self._camera.address.is_live:
            return None
        if self._camera.start is not None:
            return self._camera.start
        stated = self._container.metadata.get("creation_time")
        if stated is not None:
            try:
                return datetime.fromisoformat(times.utc_text(stated))
            except ValueError:
                pass
        modified = os.stat(self._camera.address.text).st_mtime
        seconds = (self._container.duration or 0) / self._av.time_base
        return datetime.fromtimestamp(modified, UTC) - timedelta(seconds=seconds)

    @property
    def step(self) -> float:
        """Seconds between frames, as the stream states them."""
        rate = self._video.average_rate or self._video.guessed_rate
        return float(1 / rate) if rate else 0.04

    def decoded(self, clock: Clock) -> Iterator[tuple[Stamp, Any]]:
        """Times and frames of PyAV, until the end of a file.

        Raises:
            LostStreamError: The stream broke off.
        """
        packets = iter(self._container.demux(self._video))
        damaged = 0
        while True:
            with self._explained():
                packet = next(packets, None)
            if packet is None:
                break
            try:
                frames = packet.decode()
            except self._av.error.FFmpegError as error:
                damaged += 1
                if damaged > _MAX_DAMAGED:
                    raise self._lost("it sends damaged video") from error
                continue
            for frame in frames:
                damaged = 0
                yield clock.stamp(self._pts(frame), times.now()), frame
        if self._camera.address.is_live and not self._container.duration:
            raise self._lost("it has ended the stream")

    def frame(self, stamp: Stamp, decoded: Any) -> Frame:
        """The pixels of a decoded frame, with its time."""
        return Frame(
            time=stamp.time,
            seconds=stamp.seconds,
            clock=stamp.clock,
            pixels=upright(decoded, None),
        )

    def close(self) -> None:
        self._container.close()

    def _pts(self, frame: Any) -> float | None:
        """Time stamp of the stream in seconds, if it has any."""
        is_made_up = self._container.format.name in _WITHOUT_TIMES
        return None if frame.pts is None or is_made_up else float(frame.pts * frame.time_base)

    def _open(self, hardware: str | None) -> Any:
        address = self._camera.address
        options, name, form = dict(_FILE_OPTIONS), f"file:{address.text}", None
        if address.kind == "stream":
            scheme = address.text.partition(":")[0].lower()
            options, name = dict(_STREAM_OPTIONS[scheme.removesuffix("s")]), address.text
        elif address.kind == "device":
            options, name, form = {}, address.text, "v4l2"
        more: dict[str, Any] = {}
        if hardware is not None:
            more["hwaccel"] = self._hardware(hardware)
        timeout = (OPEN_SECONDS, READ_SECONDS) if address.is_live else None
        return self._av.open(name, format=form, options=options, timeout=timeout, **more)

    def _hardware(self, kind: str) -> Any:
        from av.codec.hwaccel import HWAccel, hwdevices_available

        available = hwdevices_available()
        if kind not in available:
            raise CameraError(
                f"expected a decoding device of {', '.join(available) or 'none'}, got {kind!r:.40}"
            )
        return HWAccel(device_type=kind, allow_software_fallback=True)

    def _video_stream(self) -> Any:
        if not self._container.streams.video:
            raise self._failed("it sends no video, only other streams")
        video = self._container.streams.video[0]
        if video.codec_context is None:
            raise self._failed(
                "there is no decoder for its video. Set the camera to H.264, H.265 or MJPEG"
            )
        video.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        video.thread_type = "AUTO"
        return video

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors of FFmpeg into errors that do not show a password."""
        errors = self._av.error
        try:
            yield
        except (errors.HTTPUnauthorizedError, errors.HTTPForbiddenError) as error:
            raise self._failed("the user name or the password is wrong") from _plain(error)
        except (errors.DecoderNotFoundError, errors.DemuxerNotFoundError) as error:
            raise self._failed(
                "there is no decoder for its video. Set the camera to H.264, H.265 or MJPEG"
            ) from _plain(error)
        except errors.InvalidDataError as error:
            raise self._lost("it does not send a video") from _plain(error)
        except errors.ExitError as error:
            raise self._lost(f"it sent nothing for {READ_SECONDS:.0f} s") from _plain(error)
        except (errors.FFmpegError, OSError) as error:
            why = str(error.strerror or type(error).__name__).lower()
            raise self._lost(why) from _plain(error)

    def _failed(self, why: str) -> CameraError:
        return CameraError(self._message(why))

    def _lost(self, why: str) -> CameraError:
        # A file stays as it is; another attempt would end in the same way.
        kind = LostStreamError if self._camera.address.is_live else CameraError
        return kind(self._message(why))

    def _message(self, why: str) -> str:
        address = self._camera.address
        return f"{self._camera.name}: {address} cannot be read: {address.hidden_in(why)}."


def _plain(error: Exception) -> Exception:
    """An error without the address, which holds the password, for the chain of errors."""
    return OSError(type(error).__name__)
