"""Identity adapters, a file each."""
