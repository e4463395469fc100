"""The process itself: scratch folders, signals, parcels between processes, workers' logs. It knows no events."""
