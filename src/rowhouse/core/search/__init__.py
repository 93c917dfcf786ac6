"""The one search path: `index` keeps the words of records, `query` finds records by them."""
