"""
The carriers that come with hoft.
"""

from hoft.transports.schemes import CarrierScheme

folder = CarrierScheme("folder", "hoft.transports.folder.carrier")
memory = CarrierScheme("memory", "hoft.transports.memory.carrier")
