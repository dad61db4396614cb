"""Arms whose model a provider fine-tunes.

`hosted` is the arm; `jobs` starts and follows a job so that it is started only once; `client` talks to the
provider; `job_state` is what the state file holds; `providers` are facts about each provider.
"""
