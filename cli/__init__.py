"""The `aldm` command."""
