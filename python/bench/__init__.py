"""Benchmarks of the client against a real Vault."""
