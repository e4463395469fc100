"""Would parallel mode pay? It loads only into trials."""
