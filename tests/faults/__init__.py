"""Faults of every kind, by chance, against real servers and relays, for as long as one likes.

    python -m tests.faults --seconds 600 --seed 1

Writers that take turns write bursts to topics and channels while relays are killed, frozen and replaced,
servers crash, pause and restart, transactions stay open, rows come that nobody can send, and, if asked
for, somebody's hand is in the tables. In the end all is healed, and what arrived is compared with what is in
`outbox`: nothing may be missing, and each key's first arrivals must be in its order.
"""
