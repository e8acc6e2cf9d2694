"""
For those who write a transport or a program over a link: conformance suites, clocks, faulty channels.
"""
