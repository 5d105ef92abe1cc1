"""The science and the protocol: no I/O, no clock, no global randomness."""
