"""What a number is worth: AUC, folds, nulls, intervals, agreement, rates, survival, power."""
