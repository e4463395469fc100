"""The coordinator: agrees, reads ahead, decides, dispatches, counts. Speaks to the store, never SQL. Read
`headrace.loading.run` first.
"""
