"""The way in for files and captures: a P1 telegram is a mode D readout (DSMR P1 companion standard 5.0.2 clause 5)."""

from node.lmn.iec62056_21.decode import decode_stream

__all__ = ["decode_stream"]
