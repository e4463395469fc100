"""Predicts whether parallel mode would pay. It loads only into trials."""
