"""Bitrate against quality: codecs side by side on a folder of clips, with the same metrics for all."""
