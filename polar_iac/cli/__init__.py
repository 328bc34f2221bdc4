"""The command line: parses options, calls the session, prints, and returns an exit code."""
