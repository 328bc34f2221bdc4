"""What a CI system offers a run: annotations, a summary, outputs and links."""
