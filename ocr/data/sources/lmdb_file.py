"""Reads a database file of LMDB, in plain Python.

The C library maps the file into memory and trusts it, so that a damaged one ends the process (SIGBUS).
"""

import functools
import os
import struct
from typing import NamedTuple

_MAGIC, _VERSION = 0xBEEFC0DE, 1
_HEADER = struct.Struct("<QHHHH")  # of a page: its number, padding, flags, and where free space begins and ends
_META = struct.Struct("<IIQQ")  # magic, version, address, size of the map
_TABLE = struct.Struct("<IHHQQQQQ")  # size of a page, flags, depth; pages of branches, leaves, overflow; entries; root
_NODE = struct.Struct("<HHHH")  # low and high half of a size or page number, flags, size of the key
_BRANCH, _LEAF, _OVERFLOW = 0x01, 0x02, 0x04  # flags of a page
_BIG = 0x01  # flag of a node whose value is on pages of its own
_MAX_DEPTH = 32
_NO_PAGE = 2**64 - 1
_CACHED = 256  # pages


class DamagedError(ValueError):
    """The file is no database of LMDB, or a damaged one."""


class _Meta(NamedTuple):
    """What a meta page says: the size of pages in bytes, the number of the root page, and the transaction's number."""

    page_size: int
    root: int
    transaction: int


class LmdbFile:
    """A database file (`data.mdb`), which nobody writes to meanwhile.

    https://git.openldap.org/openldap/openldap/-/blob/mdb.RE/0.9/libraries/liblmdb/mdb.c

    Args:
      descriptor: of the file, which is closed with this object.

    Raises:
      DamagedError: it is no such file.
    """

    def __init__(self, descriptor: int):
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        self._page = functools.lru_cache(_CACHED)(self._read_page)
        metas = [meta for meta in (self._read_meta(0), self._read_meta(None)) if meta]
        if not metas:
            raise DamagedError("it is not a database of LMDB")
        self._meta = max(metas, key=lambda meta: meta.transaction)

    def __del__(self) -> None:
        os.close(self._descriptor)

    def get(self, key: bytes, max_bytes: int) -> bytes | None:
        """Returns the value of a key, cut after `max_bytes` bytes; None if it is not there.

        Raises:
          DamagedError: the file is damaged.
        """
        if (number := self._meta.root) == _NO_PAGE:
            return None
        for _ in range(_MAX_DEPTH):
            page = self._page(number)
            _, _, flags, lower, _ = _HEADER.unpack_from(page)
            nodes = self._nodes(page, lower)
            if flags & _LEAF:
                at = _search(page, nodes, key, 0)
                if at == len(nodes) or _key(page, nodes[at]) != key:
                    return None
                return self._value(page, nodes[at], max_bytes)
            if not flags & _BRANCH or not nodes:
                break
            # The first key of a branch counts as lower than any.
            at = _search(page, nodes, key, 1)
            at -= at == len(nodes) or _key(page, nodes[at]) != key
            low, high, top, _ = _unpack(_NODE, page, nodes[at])
            number = low | high << 16 | top << 32
        raise DamagedError(f"page {number} is damaged")

    def _read_meta(self, at: int | None) -> _Meta | None:
        """Reads a meta page: that at the beginning of the file or, for None, the one after it."""
        for offset in [at] if at is not None else [2**power for power in range(9, 17)]:
            page = os.pread(self._descriptor, 512, offset)
            if len(page) < _HEADER.size + _META.size + 2 * _TABLE.size + 16:
                continue
            magic, version, *_ = _META.unpack_from(page, _HEADER.size)
            size, *_ = _TABLE.unpack_from(page, _HEADER.size + _META.size)  # in the table of free pages
            *_, root = _TABLE.unpack_from(page, _HEADER.size + _META.size + _TABLE.size)
            (transaction,) = struct.unpack_from("<Q", page, _HEADER.size + _META.size + 2 * _TABLE.size + 8)
            if magic == _MAGIC and version == _VERSION and 512 <= size <= 65536 and offset in (0, size):
                return _Meta(size, root, transaction)
        return None

    def _read_page(self, number: int) -> bytes:
        size = self._meta.page_size
        if number >= self.size // size:
            raise DamagedError(f"page {number} is beyond its end")
        page = os.pread(self._descriptor, size, number * size)
        if len(page) < size or _HEADER.unpack_from(page)[0] != number:
            raise DamagedError(f"page {number} is damaged")
        return page

    def _nodes(self, page: bytes, lower: int) -> tuple[int, ...]:
        """Returns where on a page its nodes begin, in bytes."""
        count = (lower - _HEADER.size) // 2
        if not 0 <= count <= (len(page) - _HEADER.size) // 2:
            raise DamagedError(f"a page with {count} nodes")
        return struct.unpack_from(f"<{count}H", page, _HEADER.size)

    def _value(self, page: bytes, node: int, max_bytes: int) -> bytes:
        low, high, flags, key_size = _unpack(_NODE, page, node)
        size, start = low | high << 16, node + _NODE.size + key_size
        wanted = min(size, max_bytes)
        if not flags & _BIG:
            value = page[start : start + wanted]
        else:
            (first,) = _unpack(struct.Struct("<Q"), page, start)
            begin = first * self._meta.page_size
            header = os.pread(self._descriptor, _HEADER.size, begin) if begin < self.size else b""
            if len(header) < _HEADER.size or not _HEADER.unpack(header)[2] & _OVERFLOW:
                raise DamagedError(f"page {first} is damaged")
            value = os.pread(self._descriptor, wanted, begin + _HEADER.size)
        if len(value) < wanted:
            raise DamagedError("a value is cut")
        return value


def _unpack(layout: struct.Struct, page: bytes, at: int) -> tuple[int, ...]:
    if at + layout.size > len(page):
        raise DamagedError("a node is beyond its page")
    return layout.unpack_from(page, at)


def _key(page: bytes, node: int) -> bytes:
    size = _unpack(_NODE, page, node)[3]
    start = node + _NODE.size
    return page[start : start + size]


def _search(page: bytes, nodes: tuple[int, ...], key: bytes, first: int) -> int:
    """Returns the index, at least `first`, of the first node whose key is not lower than `key`."""
    low, high = first, len(nodes)
    while low < high:
        middle = (low + high) // 2
        if _key(page, nodes[middle]) < key:
            low = middle + 1
        else:
            high = middle
    return low
