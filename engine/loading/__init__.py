"""The coordinator: it agrees, reads ahead, decides, dispatches, counts. It calls the store and contains no SQL."""
