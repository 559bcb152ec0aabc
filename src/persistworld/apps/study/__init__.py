"""The preference study (paper, section 4 and appendix D): raters compare rollouts, or say how far a policy's rollout came."""
