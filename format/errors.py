"""What can be wrong with the bytes of a file. `format/` raises nothing else on bad input."""


class FormatError(ValueError):
    """The bytes are not a readable .aldm file."""


class NotAldmError(FormatError):
    """No .aldm signature at the start."""


class VersionError(FormatError):
    """Written by a newer, incompatible version of the format."""


class DamageError(FormatError):
    """Bytes are missing or changed."""
