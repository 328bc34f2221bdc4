"""The comment on a pull request, as Markdown that fits GitHub's limit."""
