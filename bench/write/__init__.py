"""What becomes of the results: the tables and pictures of the pages."""
