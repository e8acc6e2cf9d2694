"""
Makes C{twistd hoft} known.

Every C{twistd} on the machine imports this file: it names things as strings
and imports nothing of hoft.
"""

from twisted.application.service import ServiceMaker

hoft = ServiceMaker(
    "hoft",
    "hoft.tap",
    "HTTP over file transfer: a gateway between zones that exchange nothing but files.",
    "hoft",
)
