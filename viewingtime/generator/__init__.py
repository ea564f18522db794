"""What `manage.py generate_history` writes: households, and what they watched, by the rules.

`evenings` says what one profile watches, `households` who there is, `copying` writes their rows by
COPY, `history` puts it together. The same seed makes the same rows; only the days move with the
instant at which it runs.
"""
