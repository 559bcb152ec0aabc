"""Frame metrics, perceptual distance and statistics. Imports torch, numpy and scipy, and nothing of ours but the
errors.
"""
