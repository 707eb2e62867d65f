"""Triton kernels of the ttsfleet runtime.

Each module holds a kernel, its launcher and its fallback; `reference.py` holds the plain PyTorch.
"""
