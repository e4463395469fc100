"""Whether parallel mode would pay. Loads only into trials."""
