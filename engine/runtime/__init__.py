"""About this process: scratch folders, signals, parcels between processes, workers' logs. It knows no event."""
