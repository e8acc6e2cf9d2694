"""Responses that are used again (RFC 9111)."""
