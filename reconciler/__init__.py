"""GitOps for model optimization: manifests in, measured and promoted models out."""

__version__ = "0.1.0"
