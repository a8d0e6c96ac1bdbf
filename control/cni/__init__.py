"""The plugins behind the stub: requests in, what a runtime is to read out."""
