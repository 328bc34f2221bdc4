"""Polar meters as code: plan in the pull request, apply on merge."""

ENVIRONMENTS = ("production", "sandbox", "local")
"""Environments that need no definition in the manifest."""
SLUG = "[a-z0-9][a-z0-9_-]{0,62}"
"""Pattern of the names that a manifest gives: projects, keys and environments."""
