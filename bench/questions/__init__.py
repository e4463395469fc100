"""What is measured: a module for each question, whose `measure` keeps its runs in a file of the question's name."""
