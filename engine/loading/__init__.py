"""The coordinator: it agrees, reads ahead, decides, dispatches, counts. It speaks to the store, never SQL."""
