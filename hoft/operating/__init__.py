"""
For those who look after a node: what it does, what is stuck, what a file is, what to do after a restore.
"""
