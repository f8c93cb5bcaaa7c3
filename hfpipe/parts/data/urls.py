"""Data files at an address: fetched only from hosts that the recipe allows, and not from where a redirect leads astray."""

from __future__ import annotations

import ipaddress
import shutil
import socket
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import datasets

from hfpipe.errors import DataError, MachineError, RefusedError
from hfpipe.system import atomic, hub
from hfpipe.system.snapshot import digest_of_text

_SECONDS = 30.0
SCHEMES = ("http://", "https://", "ftp://", "file:", "hf://", "s3://", "gs://")


def fetch(address: str, hosts: Sequence[str], where: str) -> Path:
    """The file at an address, downloaded into the cache once.

    Args:
        address: of the file.
        hosts: that are allowed: names (`data.example.org`, for https alone) or origins (`http://10.0.0.7:8000`).
        where: the place in the recipe.

    Raises:
        RefusedError: another host or scheme, a host name that leads into a private network, or a redirect to such.
        DataError: nothing there.
        MachineError: no connection.
    """
    _refuse(address, hosts, where)
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "hfpipe" / "addresses" / digest_of_text(address)[:24]
    target = folder / (Path(urlsplit(address).path).name or "data")
    if target.is_file():
        return target
    if hub.is_offline():
        raise MachineError(f"{address} is not in the cache, and this process is offline", where=where)
    folder.mkdir(parents=True, exist_ok=True)
    opener = urllib.request.build_opener(_Redirects(hosts, where))
    try:
        with opener.open(address, timeout=_SECONDS) as answer, atomic.replaced_file(target) as file:
            shutil.copyfileobj(answer, file)
    except urllib.error.HTTPError as error:
        error.close()
        if 300 <= error.code < 400:  # to a scheme that urllib itself does not follow, or in circles
            raise RefusedError(f"{address} redirects astray: {' '.join(error.reason.split())}", where=where) from None
        raise DataError(f"{address}: {error.code} {error.reason}", where=where) from None
    except (urllib.error.URLError, OSError) as error:
        raise MachineError(f"{address} can't be fetched: {getattr(error, 'reason', error)}", where=where) from None
    return target


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to where the recipe could have pointed itself."""

    def __init__(self, hosts: Sequence[str], where: str) -> None:
        self.hosts, self.where = hosts, where

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        try:
            _refuse(newurl, self.hosts, f"{self.where} (redirected from {req.full_url})")
        except RefusedError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _refuse(address: str, hosts: Sequence[str], where: str) -> None:
    parts = urlsplit(address)
    origin, host = f"{parts.scheme}://{parts.netloc}", parts.hostname or ""
    if origin in hosts:
        return
    if parts.scheme != "https" or parts.netloc not in hosts:
        raise RefusedError(
            f"{address!r} is an address that the recipe does not allow",
            where=where,
            allowed=", ".join(hosts) or "no address",
            fix=f"If you trust it, set dataset.hosts: [{host if parts.scheme == 'https' else origin}]; or download the "
            "file and name it here.",
        )
    try:
        found = (
            {ipaddress.ip_address(info[4][0]) for info in socket.getaddrinfo(host, None)}
            if not hub.is_offline()
            else set()
        )
    except OSError:
        return  # the connection will fail with the reason
    if private := sorted(str(one) for one in found if not one.is_global):
        raise RefusedError(
            f"{host!r} leads to {private[0]}, which is no address of the public network",
            where=where,
            fix=f"If that is meant, allow the origin itself: dataset.hosts: [{origin}].",
        )
