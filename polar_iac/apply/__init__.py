"""Carrying a plan out: sessions, the executor, creates without an answer, and duplicates."""
