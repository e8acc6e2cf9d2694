"""
Layer 2: HTTP over records.  Ingress is where the caller is, egress where the service is.
"""
