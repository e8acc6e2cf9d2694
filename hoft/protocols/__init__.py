"""
Layer 1: a replicated log of sealed records over an unreliable carrier of files.
"""
