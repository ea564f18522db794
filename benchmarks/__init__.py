"""What is measured, how, and against what; see README.md. No test imports it."""
