"""Teacher forcing, the autoencoder and the perceptual network: how a base checkpoint is made from nothing."""
