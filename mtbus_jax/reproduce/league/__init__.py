"""The league table: every network of the registry under one recipe, its accuracy and its cost.

`entries` says which rows there are, `plan` makes runs of them, `results` and `costs` give a row its
figures, `write` and `picture` make the files.
"""
