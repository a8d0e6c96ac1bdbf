"""One stage at a time: C calls on a batch, no kernel unless the stage is I/O."""
