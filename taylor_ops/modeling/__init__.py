"""The modeling code that ships inside every bundle.

taylor_mlp  Taylor MLP layers: series parameters in place of the MLP output weights. Needs torch only.
"""
