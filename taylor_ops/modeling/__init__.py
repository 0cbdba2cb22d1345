"""The modeling code that ships inside every bundle. It imports torch and nothing of this project.

taylor_mlp  Taylor MLP layers: series parameters in place of the MLP output weights. Needs torch only.
"""
