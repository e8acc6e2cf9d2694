"""
Layer 0: carriers, which move whole files between nodes and promise nothing.
"""
