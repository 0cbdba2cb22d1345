"""Signatures of bundles: keys, Sigstore, and who signs.

configured  Sign a bundle as a config asks: with the key in a file, or as an identity.
keys        OpenSSF model signing of a bundle: one signature in `model.sig` over all its files, the manifest included.
signers     Who signed a bundle, with a key or as an identity: in a manifest, and for a reader who verifies.
sigstore    Sigstore signatures: no key to keep, but an account that an issuer vouches for, and a public log.
"""
