"""Makes the paper's tables, its figures and the report from the score table."""
