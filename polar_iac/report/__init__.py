"""Plans and results for people and machines: text, JSON and Markdown."""
