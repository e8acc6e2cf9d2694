"""Calls to services: where they may go, and the connections."""
