"""Changes the package in one place after another, and asks whether a test complains."""
