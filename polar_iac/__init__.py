"""Polar meters as code: plan in the pull request, apply on merge."""
