"""Byte streams between two nodes, beside HTTP on the same links; see L{hoft.streams.endpoints}."""
