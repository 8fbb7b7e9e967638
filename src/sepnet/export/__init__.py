"""Export: a trained network for another framework, another runtime or a device."""
