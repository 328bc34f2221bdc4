"""Lint: rules for meters that are valid but probably a mistake."""
