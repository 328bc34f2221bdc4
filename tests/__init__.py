"""The tests. Where a shell started them in the background, Ctrl-C is ignored, and so it would be in every
command that they start: they undo that, since some of them press it.
"""

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
