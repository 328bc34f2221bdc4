"""Polar meters as code: plan in the pull request, apply on merge."""

ENVIRONMENTS = ("production", "sandbox", "local")
