"""Members that send wrong updates, against every rule: the scenario `attacks`."""
