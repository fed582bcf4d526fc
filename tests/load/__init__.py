"""Load tests of this platform: what must hold above its capacity, and for a long time.

    overload, soak   what is measured, and what must hold
    verdicts    what should hold, and what was found
    session     the platform that was started here, and the demo questions
    plots       memory by process
    locustfile  the requests of `orrery.load` from Locust's users, with its web page
    traces      a trace to replay

What asks, keeps time and reports is `orrery.load`, with `orrery load` as its command for whoever
has the client. `python -m tests.load --help` lists the commands here; docs/load.md explains all.
"""
