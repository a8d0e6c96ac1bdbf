"""The stages in a row, from a fake TAP to a fake UDP socket and back, no kernel."""
