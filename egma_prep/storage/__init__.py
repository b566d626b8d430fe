"""Files and folders, local and in object storage: paths, listing, whole writes, locks."""
