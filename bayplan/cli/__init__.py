"""The command line, `bay`. Nothing here imports gRPC or pydantic before a command needs it."""
