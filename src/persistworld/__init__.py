"""Post-train action-conditioned robot world models on their own rollouts."""
