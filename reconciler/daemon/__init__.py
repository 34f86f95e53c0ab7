"""`reconciler run`: keeps a tree of manifests true, from a folder or from a branch, until it is stopped."""
