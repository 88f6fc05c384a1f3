"""Compares the figures of other papers, ACSNet and Residual-U-Net MTL, with those of our runs.

`tables` holds the published figures and says which network belongs to which row, `runs` reads the
given run folders, `rules` scores their predictions by a paper's rules and by ours, `write` makes
the files. Nothing is trained here.
"""
