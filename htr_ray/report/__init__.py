"""The answer of a grid: tables, figures, significance, words; as a page, Markdown and CSV."""
