"""Submissions: the result tree, its checker and its tables.

`tree` names the folders, `reading` reads files whatever is in them, `requirements` gathers what a round asks. The
checks are functions in `checks/`, each finding names a rule of `catalogue`; `check` runs them, `official` says what
the official v4.0 checker would, `shown` and `page` show it. `build` makes a tree from run folders, `truncate` shortens
accuracy logs, `table`, `workbook` and `page` write the summaries, `energy` the unofficial figures.
"""
