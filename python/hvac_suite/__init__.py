"""hvac's own integration suite, run over `VaultSecrets.hvac`. See `__main__`."""
