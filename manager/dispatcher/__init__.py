"""One stream per agent: what it is told, what it reports, and whether its node lives."""
