"""Interventions on recorded samples: continued from a stored x_t under an edit, or with another face."""
