"""Speed: how fast this machine trains a network."""
