"""The cluster's side of the operator: API client, caches, queue, Lease. Decides nothing about a fleet."""
