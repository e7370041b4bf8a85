"""The way in for files and captures: see `readings.decode_stream`."""

from node.lmn.iec62056_21.readings import decode_stream

__all__ = ["decode_stream"]
