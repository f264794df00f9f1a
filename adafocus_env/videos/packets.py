"""Reads from a coded packet's own bits whether it gives a picture, and whether decoding may begin at it.

Containers state both too, but their flags and indexes are wrong too often.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple


class Content(NamedTuple):
    """What a packet holds.

    Attributes:
        shown: Whether the packet gives one picture; otherwise it gives none.
        entry: Whether decoding may begin here, which gives this picture and all later ones in time as if decoding had
            begun with the first packet. Pictures that follow in the file but are earlier in time may need more.
    """

    shown: bool
    entry: bool


ContentReader = Callable[[bytes, bool], Content | None]
"""Takes a packet and whether the container calls it a key frame; returns its content, or ``None`` if unclear."""


def content_reader(name: str, extradata: bytes) -> ContentReader | None:
    """The function that reads packets of a codec; ``None`` if only decoding tells what is in them.

    Args:
        name: FFmpeg's name of the codec, whichever decoder is used.
        extradata: The stream's header.
    """
    match name:
        case (
            "dnxhd" | "ffvhuff" | "huffyuv" | "jpeg2000" | "mjpeg" | "png" | "prores" | "rawvideo" | "utvideo" | "v210"
        ):
            return _trusting  # a packet is a picture that refers to no other
        case "h264":
            return _H264(extradata)
        case "hevc":
            return _HEVC(extradata)
        case "mpeg4":
            return _mpeg4
        case "vp8":
            return _vp8
        case "vp9":
            return _vp9
        case "av1":
            return _trusting  # a packet is a temporal unit, which by definition shows one picture
    return None


def _trusting(packet: bytes, key: bool) -> Content:
    return Content(True, key)


class _H264:
    """Decoding may begin at an IDR picture, or at a recovery point that promises exact pictures at once. It may not
    begin at other I pictures, as later pictures may refer to earlier ones, nor where an intra refresh begins."""

    def __init__(self, extradata: bytes) -> None:
        self._prefix, self._fields = 0, False
        if extradata[:1] == b"\x01":  # avcC: each unit follows its length
            self._prefix = (extradata[4] & 3) + 1
            at = 6
            for _ in range(extradata[5] & 31):
                size = int.from_bytes(extradata[at : at + 2])
                self._fields |= _may_hold_fields(extradata[at + 2 : at + 2 + size])
                at += 2 + size
        else:
            self(extradata, False)

    def __call__(self, packet: bytes, key: bool) -> Content | None:
        pictures, entry = 0, False
        for unit in _units(packet, self._prefix):
            kind = unit[0] & 31
            if kind in (1, 2, 5):
                pictures += len(unit) > 1 and unit[1] >> 7  # the slice that begins with macroblock 0
                entry |= kind == 5
            elif kind == 6:
                entry |= _recovers_at_once(unit)
            elif kind == 7:
                self._fields |= _may_hold_fields(unit)
        # Two fields form one picture, in one packet or in two.
        return None if pictures > 1 or self._fields else Content(pictures == 1, entry and pictures == 1)


class _HEVC:
    """Decoding may begin at IDR and CRA pictures. At splices (BLA, end of sequence) pictures are dropped."""

    def __init__(self, extradata: bytes) -> None:
        self._prefix = (extradata[21] & 3) + 1 if extradata[:1] == b"\x01" and len(extradata) > 21 else 0

    def __call__(self, packet: bytes, key: bool) -> Content | None:
        pictures, entry = 0, False
        for unit in _units(packet, self._prefix):
            if len(unit) < 3 or unit[0] & 1 or unit[1] >> 3:  # a layer above the base, which isn't decoded
                continue
            kind = unit[0] >> 1
            if kind in (16, 17, 18, 36, 37):
                return None
            if kind < 32:
                pictures += unit[2] >> 7  # the picture's first slice
                entry |= kind in (19, 20, 21)
        return None if pictures > 1 else Content(pictures == 1, entry)


def _mpeg4(packet: bytes, key: bool) -> Content | None:
    """A packet holds one picture, unless two are packed into it, or it is the short placeholder that then follows."""
    start = packet.find(b"\0\0\1\xb6")
    if start < 0 or packet.find(b"\0\0\1\xb6", start + 4) >= 0 or len(packet) - start < 16:
        return None
    return Content(True, packet[start + 4] >> 6 == 0)


def _vp8(packet: bytes, key: bool) -> Content | None:
    return Content(bool(packet[0] & 0x10), not packet[0] & 1)


def _vp9(packet: bytes, key: bool) -> Content | None:
    frames = list(map(_vp9_frame, _vp9_frames(packet)))
    shown = sum(frame.shown for frame in frames)
    return None if shown > 1 else Content(shown == 1, frames[0].entry)


def _vp9_frames(packet: bytes) -> Iterator[bytes]:
    """The frames of a superframe, whose index is at the end of the packet; otherwise the packet, as the only one."""
    marker = packet[-1]
    count, width = (marker & 7) + 1, (marker >> 3 & 3) + 1
    size = 2 + count * width
    if marker >> 5 != 6 or len(packet) < size or packet[-size] != marker:
        yield packet
        return
    at = 0
    for k in range(count):
        length = int.from_bytes(packet[len(packet) - size + 1 + k * width :][:width], "little")
        if length:
            yield packet[at : at + length]
        at += length


def _vp9_frame(frame: bytes) -> Content:
    bits = _Bits(frame[:2])
    bits.take(2)
    if bits.take(1) + 2 * bits.take(1) == 3:  # profile
        bits.take(1)
    if bits.take(1):  # shows a picture that was decoded before
        return Content(True, False)
    entry = not bits.take(1)
    return Content(bool(bits.take(1)), entry)


def _units(data: bytes, prefix: int) -> Iterator[bytes]:
    """NAL units, each after its length in ``prefix`` bytes; if ``prefix`` is 0, separated by start codes."""
    if not prefix:
        yield from filter(None, data.split(b"\0\0\1")[1:])
        return
    at = 0
    while at + prefix < len(data):
        size = int.from_bytes(data[at : at + prefix])
        at += prefix
        if size:
            yield data[at : at + size]
        at += size


def _recovers_at_once(unit: bytes) -> bool:
    """Whether a unit of supplemental information has a recovery point of 0 frames and an exact match."""
    at = 1
    while at + 2 < len(unit):
        header = []
        for _ in range(2):  # kind and size, each a sum of bytes up to the first that isn't 255
            value = 0
            while at < len(unit) and unit[at] == 255:
                value, at = value + 255, at + 1
            header.append(value + unit[at] if at < len(unit) else 0)
            at += 1
        kind, size = header
        if kind == 6:
            return at < len(unit) and unit[at] >> 6 == 3  # the number 0 takes one bit; the flag of the match follows
        at += size
    return False


class _Bits:
    """Reads bits, and the numbers that H.264 makes of them; bits beyond the end are zeros."""

    def __init__(self, data: bytes) -> None:
        self._bits, self._at = "".join(f"{byte:08b}" for byte in data), 0

    def take(self, count: int) -> int:
        self._at += count
        return int(self._bits[self._at - count : self._at] or "0", 2)

    def number(self) -> int:
        """Exponential Golomb code, unsigned."""
        one = self._bits.find("1", self._at)
        zeros = max(one - self._at, 0)
        self._at += zeros
        return self.take(zeros + 1) - 1

    def signed(self) -> int:
        """Exponential Golomb code, signed: 0, 1, -1, 2, -2, …"""
        value = self.number()
        return (value + 1) // 2 if value % 2 else -value // 2


_WITH_CHROMA = {44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244}
"""Profiles whose parameter sets state the chroma format."""


def _may_hold_fields(unit: bytes) -> bool:
    """Whether a sequence parameter set of H.264 allows pictures that are coded as two fields."""
    data = unit.replace(b"\0\0\3", b"\0\0")
    if len(data) < 5:
        return True
    bits = _Bits(data[4:])
    bits.number()  # number of the parameter set
    if data[1] in _WITH_CHROMA:
        chroma = bits.number()
        if chroma == 3:
            bits.take(1)
        bits.number()  # bit depths
        bits.number()
        bits.take(1)
        if bits.take(1):
            for k in range(12 if chroma == 3 else 8):
                if bits.take(1):
                    _skip_scaling_list(bits, 16 if k < 6 else 64)
    bits.number()  # length of frame numbers
    match bits.number():  # how pictures are ordered
        case 0:
            bits.number()
        case 1:
            bits.take(1)
            bits.signed()
            bits.signed()
            for _ in range(bits.number()):
                bits.signed()
    bits.number()  # number of reference frames
    bits.take(1)
    bits.number()  # width
    bits.number()  # height
    return not bits.take(1)


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.signed()) % 256
        last = following or last
