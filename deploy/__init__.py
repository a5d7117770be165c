"""Everything around the daemons: host packages, engine, images, the local cluster, the demo.

Standard library only: these scripts run before the virtual environment exists.
"""
