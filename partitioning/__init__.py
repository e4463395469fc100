"""Pure core: encoding, identity, partitions, snapshot, dedup. No database, no processes."""
