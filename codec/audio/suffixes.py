"""Suffixes and first bytes of audio files: what can be read, what can be written, and what a file seems to be."""

from __future__ import annotations

ALDM = ".aldm"
SNDFILE = frozenset(
    (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64")
)
FFMPEG = frozenset(
    (
        *(".m4a", ".m4b", ".m4r", ".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".aac", ".alac", ".ac3", ".eac3", ".amr"),
        *(".ape", ".asf", ".avi", ".dsf", ".dts", ".flv", ".mka", ".mkv", ".mp2", ".mpc", ".mpeg", ".mpg", ".mts"),
        *(".m2ts", ".oma", ".ogv", ".qcp", ".rm", ".tak", ".ts", ".tta", ".voc", ".weba", ".webm", ".wma", ".wmv"),
        ".wv",
    )
)
READABLE = SNDFILE | FFMPEG
WRITABLE = SNDFILE - {".aifc", ".snd"}

SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"RIFF", "WAV"),
    (0, b"RF64", "WAV (RF64)"),
    (0, b"RIFX", "WAV (RIFX)"),
    (0, b"riff\x2e\x91\xcf\x11", "W64"),
    (0, b"fLaC", "FLAC"),
    (0, b"OggS", "Ogg"),
    (0, b"ID3", "MP3"),
    (0, b"FORM", "AIFF"),
    (0, b".snd", "AU"),
    (0, b"caff", "CAF"),
    (4, b"ftyp", "MP4 or M4A"),
    (0, b"\x1aE\xdf\xa3", "Matroska or WebM"),
    (0, b"\x30\x26\xb2\x75", "WMA"),
    (0, b"wvpk", "WavPack"),
    (0, b"#!AMR", "AMR"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"DSD ", "DSF"),
    (0, b"\x0bw", "AC-3"),
    (0, b"FLV\x01", "FLV"),
    (0, b"TTA1", "TTA"),
    (0, b"\xff\xf1", "AAC"),
    (0, b"\xff\xf9", "AAC"),
    (0, b"\xff\xfb", "MP3"),
    (0, b"\xff\xf3", "MP3"),
)
SIGNATURE_BYTES = 12
NOT_AUDIO = {b"AVI ", b"WEBP", b"ILBM"}  # kinds of RIFF and IFF that hold no sound, or are not for libsndfile


def guess_format(start: bytes) -> str | None:
    """Name of the audio or video format that begins with these bytes (12 are enough), or None."""
    if start[8:12] in NOT_AUDIO:
        return "AVI" if start[8:12] == b"AVI " else None
    return next((name for at, magic, name in SIGNATURES if start[at : at + len(magic)] == magic), None)


def readable(name: str) -> str:
    """A file's name for people: bytes that are not UTF-8 and control characters as escapes."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return text if text.isprintable() else text.encode("unicode_escape").decode()
