"""The API of users: documents in the store, and what only the leader knows."""
