"""Whether a pair's SQL can be told from SQL that means something else: mutants, perturbed copies, agreement."""
