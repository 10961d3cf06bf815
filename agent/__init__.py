"""The loop a researcher runs: read responses, propose order parameters, judge, measure, decide, report.

Start with `agent/graph.py` (the loop on one screen) and `agent/nodes.py` (what each box does).
"""
