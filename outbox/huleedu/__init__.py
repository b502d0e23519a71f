"""HuleEdu on the outbox: the services that the outbox was made for, and the teacher's browser.

They use the outbox's public names; the outbox never imports them, `cli` apart, and lazily.
"""
