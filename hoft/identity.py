"""
Who a node is: its key pair, kept secret, and its card, given to others.

A card is one line without spaces, so that mail and shells leave it alone::

    hoft-card:NAME:UUID:KEY:CHECK

C{KEY} is the X25519 public key in unpadded URL-safe base64, C{CHECK} ten
hexadecimal digits of BLAKE2b over all before it: it finds slips of copying.
It is no protection against forgery; comparing fingerprints is.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from base64 import b32encode, urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from attrs import field, frozen
from nacl import bindings

from hoft.errors import IdentityError

NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
"""What nodes, peers and routes may be called: it is part of paths, logs and header fields."""

NAME_WANTED = "up to 63 letters, digits, '.', '-' and '_', the first and the last a letter or digit"

KEY_SIZE = bindings.crypto_box_PUBLICKEYBYTES
_PSK = re.compile(r"[A-Za-z0-9+/_-]{43}=?")
_URL_SAFE = str.maketrans("+/", "-_")
IDENTITY_FILE = "identity"
"""The name of the key file within a state folder."""

_CARD = "hoft-card"
_IDENTITY = "hoft-identity"
_LONGEST_FILE = 1 << 16


def check_name(name: str) -> str:
    """
    @return: C{name} itself.
    @raise IdentityError: it is not what L{NAME} allows; says what it does allow.
    """
    if not NAME.fullmatch(name):
        raise IdentityError(f"{name!r} is no name; wanted: {NAME_WANTED}")
    return name


def key_id(public_key: bytes) -> int:
    """What packets call the recipient's key: 16 bits of BLAKE2b over it."""
    return int.from_bytes(hashlib.blake2b(public_key, digest_size=2, person=b"hoft key id").digest(), "big")


@frozen
class Card:
    """What others need to know of a node to exchange files with it; nothing of it is secret."""

    name: str
    """What the node calls itself; others may call it something else."""
    uuid: UUID
    public_key: bytes
    """X25519, 32 bytes."""

    @classmethod
    def parse(cls, text: str) -> Card:
        """
        Find the one card in a text, for instance a mail.

        @raise IdentityError: there is none, or several, or it is damaged.
        """
        found = set(re.findall(rf"\b{_CARD}:[^\s<>\"']*", text))
        if not found:
            raise IdentityError(f"no card in {_shortened(text)}; wanted: {_CARD}:NAME:UUID:KEY:CHECK")
        if len(found) > 1:
            raise IdentityError(f"{len(found)} different cards where one is wanted")
        fields = found.pop().rstrip(".,;").split(":")
        if len(fields) != 5:
            raise IdentityError(f"card is damaged: {len(fields)} parts of 5; have it sent again")
        _, name, uuid, key, check = fields
        if check != _check(_CARD, name, uuid, key):
            raise IdentityError("card is damaged: its check digits do not fit; have it sent again")
        public_key = _decoded(key)
        if public_key is None or not _is_canonical_uuid(uuid) or not NAME.fullmatch(name):
            raise IdentityError("card is damaged: a part is not what it should be; have it sent again")
        if not _is_usable(public_key):
            raise IdentityError("card is refused: its key would make all packets readable to anyone")
        return cls(name, UUID(uuid), public_key)

    def __str__(self) -> str:
        parts = (_CARD, self.name, str(self.uuid), _encoded(self.public_key))
        return ":".join((*parts, _check(*parts)))

    @property
    def fingerprint(self) -> str:
        """
        What two people read to each other: 160 bits of BLAKE2b over UUID and
        key, in eight groups of four.  The name is not part of it.
        """
        digest = hashlib.blake2b(
            self.uuid.bytes + self.public_key, digest_size=20, person=b"hoft card"
        ).digest()
        letters = b32encode(digest).decode("ascii").lower()
        return "-".join(letters[start : start + 4] for start in range(0, len(letters), 4))


@frozen
class Identity:
    """A node's UUID and secret key, and for a while the key before that."""

    uuid: UUID
    secret_key: bytes = field(repr=False)
    """X25519, 32 bytes."""
    older_key: bytes | None = field(default=None, repr=False)
    """The one that was replaced, while it is not retired."""

    @classmethod
    def generate(cls, entropy: Callable[[int], bytes]) -> Identity:
        """
        @param entropy: gives that many unpredictable bytes, such as L{os.urandom}.
        """
        return cls(UUID(bytes=entropy(16), version=4), entropy(KEY_SIZE))

    @classmethod
    def load(cls, path: Path) -> Identity:
        """
        @raise IdentityError: it is missing, damaged, or others may read it.
        """
        text = read_private(path, "'hoft init' makes one")
        keys: list[bytes] = []
        uuids: set[str] = set()
        for line in text.split("\n"):
            fields = line.split(":")
            if len(fields) != 4 or fields[0] != _IDENTITY or fields[3] != _check(*fields[:3]):
                raise _damaged(path)
            secret_key = _decoded(fields[2])
            if secret_key is None or not _is_canonical_uuid(fields[1]):
                raise _damaged(path)
            keys.append(secret_key)
            uuids.add(fields[1])
        if len(uuids) != 1 or len(keys) > 2:
            raise _damaged(path)
        return cls(UUID(uuids.pop()), *keys)

    def save(self, path: Path) -> None:
        """
        Write the key file, readable by its owner alone, and see it to the disk.

        @raise IdentityError: there is one already, or it cannot be written.
        """
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise IdentityError(f"{path}: there is a key already; it is not replaced") from None
        except OSError as error:
            raise IdentityError(f"{path}: cannot be written: {error.strerror}") from error
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(self.text)
            file.flush()
            os.fsync(file.fileno())

    @property
    def text(self) -> str:
        """What is in the key file."""
        lines = ((_IDENTITY, str(self.uuid), _encoded(key)) for key in self.secret_keys)
        return "".join(":".join((*parts, _check(*parts))) + "\n" for parts in lines)

    @property
    def secret_keys(self) -> tuple[bytes, ...]:
        """The newest first."""
        return (self.secret_key,) if self.older_key is None else (self.secret_key, self.older_key)

    def rotated(self, entropy: Callable[[int], bytes]) -> Identity:
        """
        The same node with a new key beside the present one.

        @raise IdentityError: there is an older one still.
        """
        if self.older_key is not None:
            raise IdentityError("there are two keys already; 'hoft key DIR retire' the older one first")
        while True:
            made = Identity(self.uuid, entropy(KEY_SIZE), self.secret_key)
            if key_id(made.public_key) != key_id(self.public_key):
                return made

    def retired(self) -> Identity:
        """
        The same node without its older key.

        @raise IdentityError: there is none.
        """
        if self.older_key is None:
            raise IdentityError("there is one key only; 'hoft key DIR rotate' makes a new one")
        return Identity(self.uuid, self.secret_key)

    @property
    def public_key(self) -> bytes:
        """X25519, 32 bytes."""
        key: bytes = bindings.crypto_scalarmult_base(self.secret_key)
        return key

    def card(self, name: str) -> Card:
        """
        The card of this node under that name.

        @raise IdentityError: C{name} is none.
        """
        return Card(check_name(name), self.uuid, self.public_key)


def psk_path(text: str) -> Path:
    """
    Where a shared secret is.

    @raise IdentityError: C{text} is the secret itself, which paths in messages would show; or no path.
    """
    if _PSK.fullmatch(text):
        raise IdentityError("a secret in place of its file's name; wanted: a file with it, of mode 0600")
    try:
        if text:
            return Path(text).expanduser()
    except RuntimeError:  # no home of that user is known
        pass
    raise IdentityError(f"{text!r} is no path; wanted: that of a file with the secret, of mode 0600")


def load_psk(path: Path) -> bytes:
    """
    The secret that two nodes share beside their keys: 32 bytes in base64, such as
    C{head -c 32 /dev/urandom | base64} makes.

    @raise IdentityError: the file is missing, others may read it, or there is
        something else in it.
    """
    text = read_private(path, "'head -c 32 /dev/urandom | base64' makes one")
    psk = _decoded(text.translate(_URL_SAFE).rstrip("=")) if _PSK.fullmatch(text) else None
    if psk is None:
        raise IdentityError(f"{path}: is not 32 bytes in base64, as 'head -c 32 /dev/urandom | base64' makes")
    return psk


def read_private(path: Path, advice: str) -> str:
    """
    A secret in ASCII in a file of its own; see L{read_secret}.

    @raise IdentityError:
    """
    return read_secret(path, advice).decode("ascii", "replace").strip()


def read_secret(path: Path, advice: str) -> bytes:
    """
    What is in a file that is for its owner alone.  Blocks on the disk.

    @param advice: how one comes by what should be there.
    @raise IdentityError: it is missing, cannot be read, is too long, or others may read it.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise IdentityError(f"{path}: no key there; {advice}") from None
    except OSError as error:
        raise IdentityError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise IdentityError(f"{path}: is not a regular file")
        if status.st_mode & 0o077:
            raise IdentityError(
                f"{path}: others may read this key (mode {stat.S_IMODE(status.st_mode):04o}); "
                f"'chmod 600 {path}', and make a new one if others did"
            )
        if status.st_size > _LONGEST_FILE:
            raise IdentityError(f"{path}: has {status.st_size} bytes; wanted: at most {_LONGEST_FILE}")
        return os.read(handle, _LONGEST_FILE)
    finally:
        os.close(handle)


def _damaged(path: Path) -> IdentityError:
    return IdentityError(f"{path}: key file is damaged; restore it from a backup")


def _check(*parts: str) -> str:
    return hashlib.blake2b(":".join(parts).encode("utf-8"), digest_size=5).hexdigest()


def _encoded(key: bytes) -> str:
    return urlsafe_b64encode(key).decode("ascii").rstrip("=")


def _decoded(text: str) -> bytes | None:
    try:
        key = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (Base64Error, ValueError):
        return None
    return key if len(key) == KEY_SIZE and _encoded(key) == text else None


def _is_canonical_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _is_usable(public_key: bytes) -> bool:
    """Points of small order give a shared key that everybody knows; libsodium refuses them."""
    try:
        bindings.crypto_scalarmult(b"\x01" * KEY_SIZE, public_key)
    except Exception:  # PyNaCl has its own tree and, by version, RuntimeError
        return False
    return True


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= 40 else text[:37] + "...")
