"""Learning: tensors live here, the network does not."""
