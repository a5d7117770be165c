"""Who a manager is, and who may do what."""
