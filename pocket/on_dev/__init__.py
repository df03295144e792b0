"""Adapters that learn on frozen dev: an IP-Adapter, PuLID, and the LoRA of one person."""
