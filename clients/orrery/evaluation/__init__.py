"""How good retrieval and answers are, on questions whose answers are known.

`rankings` and `answers` are the measures, pure functions; `datasets` reads the questions;
`retrieval` and `rag` ask them of a platform; `plots` draws the reports.
"""
