"""What edits of a run did: identity moved, with intervals over faces, and error held over a whole map."""
