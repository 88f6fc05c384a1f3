"""Other papers' figures beside those of runs: ACSNet and Residual-U-Net MTL.

`tables` says what is published and which network makes which row, `runs` reads the run folders that
are given, `rules` scores their predictions by a paper's rules and by ours, `write` makes the files.
Nothing is trained here.
"""
