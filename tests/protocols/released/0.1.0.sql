BEGIN TRANSACTION;
CREATE TABLE boot (number INTEGER PRIMARY KEY, boot BLOB NOT NULL UNIQUE);
INSERT INTO "boot" VALUES(1,X'00000000000000B1');
CREATE TABLE component (name TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO "component" VALUES('journal',1);
INSERT INTO "component" VALUES('log',1);
CREATE TABLE inbox (
                id INTEGER PRIMARY KEY,
                channel INTEGER NOT NULL,
                size INTEGER NOT NULL,
                location BLOB NOT NULL
            );
INSERT INTO "inbox" VALUES(17592186044417,1,8,X'007265636569766564');
CREATE TABLE journal (only INTEGER PRIMARY KEY CHECK (only = 1), incarnation BLOB NOT NULL, boot TEXT NOT NULL, node BLOB) STRICT;
INSERT INTO "journal" VALUES(1,X'A0E6921A65D92DFD','',NULL);
CREATE TABLE link (
                id INTEGER PRIMARY KEY,
                peer BLOB NOT NULL UNIQUE,
                generation INTEGER NOT NULL DEFAULT 0,
                boot BLOB,
                clock INTEGER NOT NULL DEFAULT 0,
                peer_incarnation BLOB,
                peer_clock INTEGER NOT NULL DEFAULT 0,
                peer_boot BLOB,
                next_number INTEGER NOT NULL DEFAULT 1,
                received BLOB NOT NULL DEFAULT x'',
                rolled_back INTEGER NOT NULL DEFAULT 0,
                last_outbox INTEGER NOT NULL DEFAULT 0,
                last_inbox INTEGER NOT NULL DEFAULT 0,
                estimates BLOB
            );
INSERT INTO "link" VALUES(1,X'70707070707070707070707070707070',2,X'00000000000000B1',4,X'00000000000000E1',9,X'00000000000000B9',3,X'04000000000000000400000000000000',0,17592186044418,17592186044417,NULL);
CREATE TABLE outbox (
                id INTEGER PRIMARY KEY,
                number INTEGER,
                channel INTEGER NOT NULL,
                urgency INTEGER NOT NULL,
                size INTEGER NOT NULL,
                location BLOB NOT NULL,
                expires REAL
            );
INSERT INTO "outbox" VALUES(17592186044417,1,1,3,8,X'006E756D6265726564',NULL);
INSERT INTO "outbox" VALUES(17592186044418,2,1,3,8,X'00616E642074686973',NULL);
CREATE TABLE retired (
                link INTEGER NOT NULL REFERENCES link,
                incarnation BLOB NOT NULL,
                PRIMARY KEY (link, incarnation)
            ) WITHOUT ROWID;
INSERT INTO "retired" VALUES(1,X'00000000000000E0');
CREATE TABLE segment (number INTEGER PRIMARY KEY, length INTEGER NOT NULL, live INTEGER NOT NULL) STRICT;
COMMIT;
