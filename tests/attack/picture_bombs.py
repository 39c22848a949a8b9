"""Small files of huge pictures."""

import struct
import zlib


def _blocks(data: bytes) -> bytes:
    return b"".join(bytes([len(data[at : at + 255])]) + data[at : at + 255] for at in range(0, len(data), 255)) + b"\0"


def gif(width: int, height: int, frames: int) -> bytes:
    """A GIF of *frames* frames of *width*×*height* pixels of one colour, in some hundred bytes a frame and fewer."""
    codes, bits, filled = bytearray(), 0, 0
    # LZW with 3-bit codes, cleared before the codes grow: never larger than it must be for a frame that is cut short.
    for code in (4, 0, 0, 4, 5):
        bits |= code << filled
        filled += 3
    codes += bits.to_bytes((filled + 7) // 8, "little")
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    one = b"\x21\xf9\x04\x04\x01\x00\x00\x00" + b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02" + _blocks(bytes(codes))
    return head + one * frames + b"\x3b"


def png(width: int, height: int) -> bytes:
    """A grey PNG of zeros, packed as tightly as it goes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer, rows = zlib.compressobj(9), bytearray()
    for _ in range(height):
        rows += packer.compress(bytes(width + 1))
    rows += packer.flush()
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", bytes(rows))
        + chunk(b"IEND", b"")
    )
