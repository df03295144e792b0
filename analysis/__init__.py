"""Past tense: the transformer is gone and only the record is left."""
