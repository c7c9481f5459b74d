"""Opening any picture, ink on paper, and where pictures lie."""
