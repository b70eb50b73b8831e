"""Errors for bad input. `format/` raises no others for it."""


class FormatError(ValueError):
    """The bytes are not a readable .aldm file."""


class NotAldmError(FormatError):
    """No .aldm signature at the start."""


class VersionError(FormatError):
    """Written by a newer, incompatible version of the format."""


class DamageError(FormatError):
    """Bytes are missing or changed."""
