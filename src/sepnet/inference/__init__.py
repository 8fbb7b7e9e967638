"""Inference: a finished run at work: evaluated, and asked about pictures."""
