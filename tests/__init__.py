"""The tests of hoft."""

import signal

# A shell starts what runs in its background with interrupts ignored, and each process hands that
# down: those that the tests interrupt are to be interrupted all the same.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
