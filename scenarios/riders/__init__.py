"""The scenario `free-riders`: who rides how, a fast engine for many seeds, and what is counted."""
