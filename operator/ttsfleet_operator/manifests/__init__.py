"""The children of a TTSService as plain data: a `FleetPlan` goes in, manifests in apply order come out. Pure.

`fleet_objects.render_fleet` is the entry point; `pod_template.pod_template` makes what a plan stores. Nothing is
imported here, because `fleet` and these modules use each other's types.
"""
