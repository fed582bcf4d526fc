"""Load tests: what is asked, when it is asked, what became of it, and the report.

    asks        what a caller asks for, of each kind; knows no transport
    over_grpc, over_http   how it is asked and how its answer is heard
    arrivals, trace        when requests come: by chance, in bursts, as they once came
    driver      keeps time: open loop (arrivals wait for no answer) and closed loop (callers do)
    outcomes    the one outcome that every request has
    summary, report, plots  percentiles, goodput, refusals, errors: JSON, table, picture
    overload, soak          what must hold above capacity, and for a long time
    locustfile  the same requests from Locust's users, with its web page

`python -m tests.load --help` lists the commands; docs/load.md explains them.
"""
