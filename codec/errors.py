"""Errors and warnings of the codec. Without torch, for `aldm info`."""


class ModelError(ValueError):
    """A model folder that is missing, incomplete, or not the one that a file needs."""


class AudioError(ValueError):
    """Input that is not usable audio, or an output that cannot hold what it should."""


class AldmWarning(UserWarning):
    """Something that a user should know: a licence, or a part that took the place of another."""
