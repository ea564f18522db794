"""A player to try the service with: families that watch an evening over HTTP, in real time.

`evening` plans what happens, `families` lets many of them do it at once, each `child` by way of
`service` (the HTTP client); `reckoning` works out what the rules make of it from the player's own
clock, `report` sets that beside what the service counted. Nothing in here touches the database.
"""
