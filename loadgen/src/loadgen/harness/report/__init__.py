"""What a person gets to see: the terminal (`screen`), `results.json` (`record`), the page and its charts (`page`,
`charts`, from the `columns` of a test), two runs side by side (`compare`). `collect` gathers it all during a run."""
