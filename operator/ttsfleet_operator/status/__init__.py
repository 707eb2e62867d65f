"""What a TTSService says of itself: status, conditions and Events, from the plan and what the cluster shows. Pure.

`build.build_status` is where to start reading. Every reason is a member of `reasons.Reason`; docs/status.md explains
each one. Nothing that a registry, a model hub or a webhook answered is repeated: only names, codes and causes.
"""
