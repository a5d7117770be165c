"""The durable facts: etcd's v3 API, keys, packed records, and one commit in flight."""
