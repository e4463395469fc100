"""What questions share: timed processes, results that resume, inputs, databases, and the check that a load is right."""
