"""
hoft: HTTP over file transfer.

Two zones that exchange nothing but files; an application in one calls HTTP
services in the other.  Read the packages in the order in which a call walks
through them:

``hoft.web``
    Layer 2.  *Ingress* takes HTTP requests from callers and turns them into
    records; *egress* turns records back into requests and performs them.
``hoft.messages``
    Messages between programs, beside HTTP on the same links.
``hoft.streams``
    Byte streams, too: any Twisted protocol between programs, any TCP through ports.
``hoft.protocols``
    Layer 1.  The replicated log: every record a program commits on one node
    is handed up exactly once on the other, sealed, across crashes of both.
``hoft.transports``
    Layer 0.  Carriers move whole files between two nodes and promise nothing.

``hoft.interfaces`` says where the layers meet, ``hoft.errors`` whose fault
things are, ``hoft.node`` puts the layers together and ``hoft.testing`` is for
those who write a transport or a program of their own.  No layer imports the
one above it; ``transports`` and ``protocols`` do not know of each other.
"""

__version__ = "0.1.0"
