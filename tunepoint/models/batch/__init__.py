"""Calls that a provider answers within a day, at a lower price: its batch API.

`gathering` collects the requests of a study and waits; `endpoint` submits them and hands out the answers;
`jobs` is what it asks of a provider;
`openai_jobs` and `anthropic_jobs` speak to one; `log` remembers every batch, so that a killed study finds its
batches again; `terms` says who offers what.
"""
