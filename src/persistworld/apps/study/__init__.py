"""The preference study (paper, section 4 and appendix D): raters compare rollouts, or label how far a policy's rollout got."""
