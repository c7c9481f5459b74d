"""What the pages share: choices, tables, charts and the contact sheet."""
