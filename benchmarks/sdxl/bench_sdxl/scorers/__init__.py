"""The networks that generated images are scored by, and the distance of two sets of images.

`clip` says how well an image fits a caption, `inception` gives the features whose distribution `frechet` compares.
Both networks take their sizes from their weights files.
"""
