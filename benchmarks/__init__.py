"""How fast sepnet trains, beside stock PyTorch and Keras; see README.md."""
