"""The pure core: encoding, identity, partitions, snapshot, deduplication. It uses no database and no processes."""
