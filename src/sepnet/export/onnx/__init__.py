"""ONNX files: the float network, and the int8 plan as QDQ."""
