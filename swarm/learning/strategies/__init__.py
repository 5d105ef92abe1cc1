"""What a site does with a round's model, and what becomes of the merged updates. Room: learning."""
