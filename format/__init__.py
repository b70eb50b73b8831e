"""The .aldm bitstream: container (header, records) and entropy coding. Specified in spec/aldm-format.md."""

from .container import (
    Header,
    Packet,
    Record,
    pack_end,
    pack_record,
    read_records,
)
from .errors import DamageError, FormatError, NotAldmError, VersionError
from .stream import Stream, read_stream

__all__ = [
    "DamageError",
    "FormatError",
    "Header",
    "NotAldmError",
    "Packet",
    "Record",
    "Stream",
    "VersionError",
    "pack_end",
    "pack_record",
    "read_records",
    "read_stream",
]
