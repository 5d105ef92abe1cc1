"""One hospital: the only package that performs I/O."""
