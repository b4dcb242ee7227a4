"""What every method must do, as plain functions over the registry. A new file in src is tested without writing a test.

A law takes one thing and asserts; ``test_laws.py`` runs all of them, ``test_mutations.py`` shows that each can fail.
A law that is for some things only says so with ``world.only``; for the others no test is made.
"""
