"""Responses that are sent to who is to be called back (Standard Webhooks)."""
