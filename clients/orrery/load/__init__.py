"""A platform under load: what is asked, when it is asked, what became of it, and the report.

    asks        what a caller asks for, of each kind; knows no transport
    over_grpc, over_http   how it is asked and how its answer is heard
    transports  connections to one platform, over either
    arrivals, trace        when requests come: by chance, in bursts, as they once came
    driver      keeps time: open loop (arrivals wait for no answer) and closed loop (callers do)
    outcomes    the one outcome that every request has
    summary     percentiles, rates, goodput, refusals, errors
    report      the same in a folder: JSON, and a picture

`orrery load` is its command.
"""
