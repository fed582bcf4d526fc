"""The calls of both clients, as steps: arguments -> request -> route -> attempts -> result.

`Client` and `AsyncClient` differ only in how they carry the steps out. Arguments are checked when a
method here is called, before any step is taken. One module for each service.
"""
