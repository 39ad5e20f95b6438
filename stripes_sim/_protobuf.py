"""Just enough of the wire format of Protocol Buffers to read a message without its schema.

A message is a row of fields, each a key (number * 8 + wire type) and a value: type 0 a varint, 1 eight bytes, 2 a
length and so many bytes, 5 four bytes (https://protobuf.dev/programming-guides/encoding/).

>>> fields(b"\\x08\\x96\\x01\\x12\\x02hi")
{1: [150], 2: [b'hi']}
"""

from __future__ import annotations

__all__ = ["Fields", "fields", "integers"]

Fields = dict[int, list[int | bytes]]
_FIXED = {1: 8, 5: 4}


def fields(message: bytes) -> Fields:
    """The values of every field by its number, in order.

    Raises:
        ValueError: the bytes are no message.
    """
    found: Fields = {}
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        value: int | bytes
        if wire == 0:
            value, at = _varint(message, at)
        elif wire == 2 or wire in _FIXED:
            size = _FIXED.get(wire)
            if size is None:
                size, at = _varint(message, at)
            value, at = message[at : at + size], at + size
        else:
            raise ValueError(f"byte {at}: wire type {wire} is none of Protocol Buffers'")
        if at > len(message) or not number:
            raise ValueError(f"byte {at}: a field reaches beyond the end")
        found.setdefault(number, []).append(value)
    return found


def integers(values: list[int | bytes]) -> list[int]:
    """Repeated signed 64-bit integers, packed into one field or a field each."""
    numbers: list[int] = []
    for value in values:
        if isinstance(value, int):
            numbers.append(value)
            continue
        at = 0
        while at < len(value):
            number, at = _varint(value, at)
            numbers.append(number)
    return [number - 2**64 if number >= 2**63 else number for number in numbers]


def _varint(message: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError(f"byte {at}: a number does not end")
        byte = message[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at
