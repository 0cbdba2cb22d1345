"""Signatures of bundles: keys, Sigstore, and who signs.

keys      OpenSSF model signing of a bundle: one signature over all its files, the manifest included, in
          `model.sig`.
signers   Who signs a bundle, by a key or by an identity: as a config names it, as a manifest states it, as a
          reader asks.
sigstore  Signatures by who someone is (Sigstore): no key to keep, an account that an issuer vouches for, and a
          public log.
"""
