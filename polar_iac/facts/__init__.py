"""Facts about usage and billing that a plan or a check joins with what would change."""
