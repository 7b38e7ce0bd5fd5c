"""redline takes a GPU box and a model from bare metal to a proven LLM serving configuration."""

from __future__ import annotations

__version__ = "0.1.0"
