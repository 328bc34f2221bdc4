"""Tests of meters: events, and what a meter is expected to make of them."""
