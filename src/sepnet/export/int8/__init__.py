"""The one int8 quantization, its definition, and how a device runs it."""
