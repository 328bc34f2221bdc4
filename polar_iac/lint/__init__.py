"""Lint: rules for meters that are valid and hardly mean what they say."""
