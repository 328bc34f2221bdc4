"""State between runs: the lockfile in the repository; the journal and the lock on this machine."""
