"""The tools of a run: stages, progress, GPU slots, secrets, task runners and log.

gpu               The concurrency limit `gpu`: a stage that computes on a GPU holds a slot of it only while it works.
log_filter        Keep tracebacks of expected errors out of Prefect's logs, where two lines say what to do, and secrets
                  out of all.
pace              How far a stage is, in words: what is done of how much, how long the step at work lasts, and the time
                  left.
prefect_database  Databases for temporary Prefect servers, without loading every migration of Prefect each time.
progress          Show how far a stage is: one moving line on a terminal, sparse lines in a log, a progress artifact on
                  the server.
pulse             The pulse of a run: events by which the server knows that its process is alive, and one when it falls
                  silent.
release_run       One run of the release flow: its config, its folders, and how it performs a stage or reuses its
                  result.
runners           Convert the parts of a model on the workers of a Prefect task runner.
secrets           Tokens from Prefect Secret blocks, which are read at the moment of use, and reach no task and no
                  record.
tags              Tags by which people find runs and deployments on a server: model, version and target.
temporary_server  The temporary Prefect server of a run that has no other: it ends when the run ends, however that comes
                  about.
"""
