"""The paper's tables and figures and the report, made from the score table."""
