"""The int8 plan as a TensorFlow Lite file."""
