"""What a TTSService's fleet should be: nodes, settings and what runs go in, a `FleetPlan` comes out. Pure.

No cluster client, no clock, no environment (an import contract). `reconcile` observes and calls `plan_fleet`;
`manifests` and `status` render its answer.
"""
