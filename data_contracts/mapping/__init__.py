"""A site's own column names and codes, mapped onto a contract, and proposals of mappings."""
