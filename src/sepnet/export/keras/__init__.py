"""A network in Keras 3: its definition as source, and a ``.keras`` file with its weights."""
