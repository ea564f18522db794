"""The fault matrix: real servers and processes are killed, hung, slowed and filled under load.

Players and parents keep books of every answer they were given (`books`, `people`). An `Evening`
plays, disturbs and waits for recovery; in its end a judge (`judge`) holds the books against what
PostgreSQL has. `docs/reliability.md` tells what is promised, and has the figures (`table`).
"""
