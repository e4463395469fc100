"""About this process: scratch folders, signals, parcels between processes, workers' logs. Knows no event."""
