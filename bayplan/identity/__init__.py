"""Who is who: names, certificates, join tokens, and how a process comes by its own."""
