"""The league table: every network of the registry under one recipe, its accuracy and its cost.

`entries` lists the rows, `plan` turns them into runs, `results` and `costs` give the figures of
each row, `write` and `picture` make the files.
"""
