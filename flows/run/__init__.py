"""What a run has in its hands: its stages, progress, GPU slots, secrets, task runners and log.

gpu               The slot of the concurrency limit `gpu`: a stage that computes on a GPU holds one while it works, and
                  no longer.
log_filter        Keep tracebacks of expected errors out of Prefect's logs: what a person can act on is said in two
                  lines.
progress          The progress of a stage: now and then in the log, and as a progress artifact on the server.
release_run       One run of the release flow: its config, where it writes, and how it performs a stage or reuses it.
runners           Which Prefect task runner carries the parts of a conversion to which workers.
secrets           Tokens from Prefect Secret blocks: read where they are used, handed to no task and kept in no record.
temporary_server  The temporary Prefect server of a run that has no other: it ends when the run ends, however that comes
                  about.
"""
