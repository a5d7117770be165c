"""Everything around the daemons: host packages, engine, images, the local cluster, the demo.

Standard library only: these scripts run before the virtual environment exists. But for the page of
the demo and the power cut, which are started in it.
"""
