"""
Layer 0: whole files moved between two nodes by a folder, or whatever else carries files.

A carrier promises nothing: a file may be late, out of order, twice, cut short,
damaged, forged or gone.  The contracts are in L{hoft.interfaces}, the suite that
every carrier has to pass in L{hoft.testing.conformance}.

- L{hoft.transports.schemes}: from a transport URL to the carrier's maker.
- L{hoft.transports.filenames}: the names of packet files.
- L{hoft.transports.folder}: the polling folder, the default; its parts are
  L{directories<hoft.transports.directories>} (system calls that a hostile
  folder cannot abuse), L{writing<hoft.transports.writing>},
  L{scanning<hoft.transports.scanning>}, L{reading<hoft.transports.reading>},
  L{delivery<hoft.transports.delivery>} (whose turn, and what follows from a verdict)
  and L{watching<hoft.transports.watching>}.
- L{hoft.transports.memory}: a folder in memory, for tests and simulations.
"""

WHERE = "transport"
"""What L{ConfigurationError<hoft.errors.ConfigurationError>}s about transport URLs name as their place."""
