"""The section `publish.signing` of a release config: with what a bundle is signed."""

from __future__ import annotations

from taylor_ops.section import LocalPath, Section


class Signing(Section):
    """With what the bundle is signed (OpenSSF model signing)."""

    key_file: LocalPath
    """PEM file with an elliptic curve private key, relative to the config file's folder. Its name goes nowhere; the
    password of an encrypted key is read from the environment variable `TAYLOR_RELEASE_KEY_PASSWORD`."""
