"""A study on several machines: who decides stays in one process, and the others train and answer."""
