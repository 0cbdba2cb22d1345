"""Attestations of a bundle for who audits a team: its gates, its provenance and its bill of materials.

attest             Write the attestations of a bundle, sign them, and hold them against its manifest.
bill_of_materials  The bill of materials of a bundle (CycloneDX 1.6): model card, files, source, data sets, licences
                   and tools.
statements         The in-toto statements of a bundle: the gates that it passed, and its provenance (SLSA).
"""
