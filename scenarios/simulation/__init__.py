"""A whole swarm in one process under virtual time, from one seed, with everything that can go wrong."""
