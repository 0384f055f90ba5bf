"""Images: which files of a folder are images, and what their pixels are."""
