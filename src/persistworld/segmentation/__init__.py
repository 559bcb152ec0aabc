"""Robot and object masks: from the simulator, or from RoboEngine's networks (paper, section 4.1)."""
