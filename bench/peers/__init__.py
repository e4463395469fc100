"""Who is measured beside Headrace. The scripts run by path, each with the Python that has the peers installed."""
