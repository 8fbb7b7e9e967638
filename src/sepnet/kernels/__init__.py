"""What stock PyTorch lacks on the processor."""

from sepnet.kernels.accelerate import accelerate, repeated
from sepnet.kernels.allocator import keep_freed_memory
from sepnet.kernels.native import describe

__all__ = ["accelerate", "describe", "keep_freed_memory", "repeated"]
