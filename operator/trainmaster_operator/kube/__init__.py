"""The only place that talks to the Kubernetes API: a small async client, reflectors, and a Lease leader election."""
