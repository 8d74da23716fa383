"""Bike sharing data, from a provider's feed to PostgreSQL, without a secret in any file."""
