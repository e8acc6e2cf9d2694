"""Where callers are: calls come in, responses go back, and some are kept."""
