"""What stock PyTorch lacks on the processor."""

from sepnet.kernels.allocator import keep_freed_memory

__all__ = ["keep_freed_memory"]
