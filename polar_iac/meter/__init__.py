"""Meters: their fields, the spec that is declared, and when two of them are equal."""
