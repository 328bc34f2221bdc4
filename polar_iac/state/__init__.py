"""What a machine and a repository remember: the lockfile, the journal, and the lock of a run."""
