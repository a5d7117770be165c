"""The app of the demo and of the tests under load: it says who answered, and it ends politely.

Python's standard library alone, as the example's image has nothing else.
"""
