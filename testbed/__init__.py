"""A real Kubernetes on one Linux box, without Docker; see ``docs/testbed.md``.

``python -m testbed up`` gives nodes that run containers (root, Linux). `testbed.control_plane.ControlPlane`
gives an API server for integration tests and benchmarks, and needs no root.
"""
