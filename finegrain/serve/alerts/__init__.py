"""Saved searches that fire: standing queries in a file, their alarms, and who is told of them.

The file (:mod:`~finegrain.serve.alerts.book`) holds the queries and their newest alarms. One
process examines new pictures (:mod:`~finegrain.serve.alerts.runner`) and sends alarms to webhooks
(:mod:`~finegrain.serve.alerts.webhook`). Clients also read them as server-sent events
(:mod:`~finegrain.serve.routes.alerts`).
"""
