"""The parts that both databases share: the transaction of a commit, the ledger, the outbox, rejects, schema,
retries.
"""
